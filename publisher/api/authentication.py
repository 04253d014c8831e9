"""Who calls: a bearer key stands for a tenant."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from publisher.api.service import CurrentService
from publisher.errors import Unauthorized
from publisher.keys.scopes import ALL, Scope
from publisher.keys.text import is_damaged
from publisher.logs.fields import tell
from publisher.store import browser_sessions, keys, members, origin
from publisher.store.models import ApiKey, Tenant
from publisher.store.origin import Subject
from publisher.store.tenants import refuse_suspended

_bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="`Authorization: Bearer loramk_…`")


@dataclass(frozen=True)
class Caller:
    """`key_id` is what the call stands on: an API key, or a person's membership (`mem_…`) on the dashboard.
    `session_id` is the dashboard's session if it is one, good until `expires` (seconds since 1970): streams end when
    one of them does."""

    tenant_id: str
    tenant_name: str
    key_id: str
    session_id: str | None = None
    expires: float = math.inf
    #: of the key, with what its scopes include
    rights: frozenset[Scope] = ALL
    #: folders that the tenant may register from; None: those of the settings
    local_roots: tuple[str, ...] | None = None


def authenticate(
    service: CurrentService, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """One refusal for every reason, so that nothing can be learned from it; but a damaged key and one of a suspended
    tenant are told as such, which only who has the key can see."""
    if credentials is not None:
        refuse_damaged(credentials.credentials)
        with service.database.read() as session:
            found = service.doorkeeper.find(session, credentials.credentials)
        if found is not None:
            caller = caller_of(*found)
            origin.caller_is(Subject.key(caller.key_id))
            tell(tenant=caller.tenant_id, key_id=caller.key_id)
            service.rates.admit(caller.tenant_id)
            return caller
    raise Unauthorized(
        "The API key is missing, wrong, revoked or expired.", way_out="Send one as Authorization: Bearer <key>."
    )


def caller_of(key: ApiKey, tenant: Tenant) -> Caller:
    """Who stands behind a key that works. Raises Suspended."""
    return in_tenant(tenant, key.id, key.rights)


def in_tenant(tenant: Tenant, stands_on: str, rights: frozenset[Scope]) -> Caller:
    """Who acts for a tenant by a key or a membership. Raises Suspended."""
    refuse_suspended(tenant)
    roots = None if tenant.local_roots is None else tuple(tenant.local_roots)
    return Caller(tenant.id, tenant.name, stands_on, rights=rights, local_roots=roots)


def refuse_damaged(key: str) -> None:
    """Raises Unauthorized for what was a key before it was mistyped or cut short."""
    if is_damaged(key):
        raise Unauthorized("The API key is damaged: its checksum does not fit.", way_out="Copy it anew, as a whole.")


def still_allowed(session: Session, callers: Collection[Caller]) -> set[Caller]:
    """Those whose key or membership, and whose session still count, and whose tenant is not suspended."""
    grounds = {caller.key_id for caller in callers}
    valid = keys.open_to(session, grounds) | members.still_standing(session, grounds)
    ended = browser_sessions.ended(session, {caller.session_id for caller in callers if caller.session_id})
    now = time.time()
    return {one for one in callers if one.key_id in valid and one.session_id not in ended and now < one.expires}


CurrentCaller = Annotated[Caller, Depends(authenticate)]

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
from publisher.logs.fields import tell
from publisher.store import browser_sessions, keys

_bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="`Authorization: Bearer loram_…`")


@dataclass(frozen=True)
class Caller:
    """`key_id` is what the call stands on, `session_id` the dashboard's session if it is one, good until `expires`
    (seconds since 1970): streams end when one of them does."""

    tenant_id: str
    tenant_name: str
    key_id: str
    session_id: str | None = None
    expires: float = math.inf


def authenticate(
    service: CurrentService, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """One refusal for every reason, so that nothing can be learned from it."""
    if credentials is not None:
        with service.database.read() as session:
            found = keys.key_and_tenant(session, credentials.credentials)
            if found is not None:
                key, tenant = found
                tell(tenant=tenant.id, key_id=key.id)
                return Caller(tenant.id, tenant.name, key.id)
    raise Unauthorized("The API key is missing, wrong or revoked.", way_out="Send one as Authorization: Bearer <key>.")


def still_allowed(session: Session, callers: Collection[Caller]) -> set[Caller]:
    """Those whose key and session still count."""
    valid = keys.not_revoked(session, {caller.key_id for caller in callers})
    ended = browser_sessions.ended(session, {caller.session_id for caller in callers if caller.session_id})
    now = time.time()
    return {one for one in callers if one.key_id in valid and one.session_id not in ended and now < one.expires}


CurrentCaller = Annotated[Caller, Depends(authenticate)]

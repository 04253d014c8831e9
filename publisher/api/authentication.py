"""Who calls: a bearer key stands for a tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from publisher.api.service import CurrentService
from publisher.errors import Unauthorized
from publisher.store import keys

_bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="`Authorization: Bearer loram_…`")


@dataclass(frozen=True)
class Caller:
    """`key_id`: of the key that was sent, or that a session was begun with."""

    tenant_id: str
    tenant_name: str
    key_id: str


def authenticate(
    service: CurrentService, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """One refusal for every reason, so that nothing can be learned from it."""
    if credentials is not None:
        with service.database.read() as session:
            found = keys.key_and_tenant(session, credentials.credentials)
            if found is not None:
                key, tenant = found
                return Caller(tenant.id, tenant.name, key.id)
    raise Unauthorized("The API key is missing, wrong or revoked.", way_out="Send one as Authorization: Bearer <key>.")


CurrentCaller = Annotated[Caller, Depends(authenticate)]

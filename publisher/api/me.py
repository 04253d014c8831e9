"""Who calls: what a key says of itself."""

from __future__ import annotations

from fastapi import APIRouter

from publisher.api.api_keys_schema import MeAnswer
from publisher.api.authentication import CurrentCaller
from publisher.api.errors import documented
from publisher.api.service import CurrentService
from publisher.store.models import ApiKey
from publisher.store.tenancy import owned

router = APIRouter(prefix="/v1/me", tags=["me"])


@router.get("", responses=documented(401))
def get_me(service: CurrentService, caller: CurrentCaller) -> MeAnswer:
    """Say whose key was sent, and what it may do. Every key may ask."""
    with service.database.read() as session:
        key = owned(session, ApiKey, caller.tenant_id, caller.key_id)
        return MeAnswer(
            tenant_id=caller.tenant_id,
            tenant_name=caller.tenant_name,
            key_id=key.id,
            key_name=key.name,
            scopes=sorted(caller.rights),
            expires_at=key.expires_at,
        )

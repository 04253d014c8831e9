"""API keys of the caller's tenant."""

from __future__ import annotations

from fastapi import APIRouter, status

from publisher.api.api_keys_schema import ApiKeyAnswer, ApiKeyRequest, NewApiKeyAnswer
from publisher.api.authentication import CurrentCaller
from publisher.api.errors import documented
from publisher.api.paging import Page, RequestedPage
from publisher.api.service import CurrentService
from publisher.errors import Conflict
from publisher.hub.faults import Forbidden
from publisher.keys.scopes import Scope, refuse_more, require
from publisher.keys.text import new_key
from publisher.store import keys
from publisher.store.database import clock
from publisher.store.models import ApiKey
from publisher.store.paging import newest_first
from publisher.store.tenancy import owned, readable_by

router = APIRouter(prefix="/v1/api-keys", tags=["API keys"])


@router.post("", status_code=status.HTTP_201_CREATED, responses=documented(401, 403, 422))
def create_api_key(request: ApiKeyRequest, service: CurrentService, caller: CurrentCaller) -> NewApiKeyAnswer:
    """Make a key. The answer is the only place where it is ever shown.

    Without `scopes` it may do what the key may that is sent; it can never do more, and ends with it at the latest.
    """
    scopes = sorted(caller.rights) if request.scopes is None else list(dict.fromkeys(request.scopes))
    refuse_more(scopes, caller.rights)
    key = new_key()
    with service.database.write() as session:
        makers_end = keys.end_of(session, caller.tenant_id, caller.key_id)
        row = keys.add_key(
            session,
            caller.tenant_id,
            request.name,
            key,
            created_by=caller.key_id,
            digests=service.doorkeeper.digests,
            scopes=scopes,
            expires_at=request.expiry(clock(session), makers_end),
        )
    return NewApiKeyAnswer(**ApiKeyAnswer.model_validate(row).model_dump(), key=key)


@router.get("", responses=documented(401))
def list_api_keys(service: CurrentService, caller: CurrentCaller, page: RequestedPage) -> Page[ApiKeyAnswer]:
    """List keys, revoked and expired ones too."""
    with service.database.read() as session:
        rows = newest_first(session, readable_by(caller.tenant_id, ApiKey), ApiKey, page.cursor, page.limit)
    return Page(items=[ApiKeyAnswer.model_validate(row) for row in rows.items], next_cursor=rows.next_cursor)


@router.delete("/{id}", status_code=status.HTTP_204_NO_CONTENT, responses=documented(403, 404, 409))
def revoke_api_key(id: str, service: CurrentService, caller: CurrentCaller) -> None:
    """Revoke a key, at once and for good: the one that is sent, one that it made, or with the tenant's first key any.

    Every key may revoke itself; for others it needs the scope admin. The last one with the scope admin and without an
    end stays: nobody could get in to make another.
    """
    if id != caller.key_id:
        require(Scope.ADMIN, caller.rights)
    with service.database.write() as session:
        row = owned(session, ApiKey, caller.tenant_id, id)
        if not keys.may_revoke(session, caller.key_id, row):
            raise Forbidden(
                f"{id} was not made by the key that you sent.", way_out="Send the key that made it, or your first one."
            )
        if not keys.revoke_unless_last(session, row):
            raise Conflict(
                f"{id} is the only key that works and can make others: of the scope admin, without an end.",
                way_out="Make another one first.",
            )

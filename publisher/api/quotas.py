"""What the caller's tenant may have at once, and has."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter

from publisher.api.authentication import CurrentCaller
from publisher.api.errors import documented
from publisher.api.quotas_schema import QuotaAnswer, QuotasAnswer
from publisher.api.service import CurrentService
from publisher.hub.rate_window import Rate
from publisher.store import origin
from publisher.store.quotas import (
    JOBS_QUEUED,
    JOBS_RUNNING,
    QUOTAS,
    REQUESTS_PER_MINUTE,
    STORED_BYTES,
    limits_of,
    queued_jobs,
    running_jobs,
)
from publisher.store.stored_objects import stored_bytes

router = APIRouter(prefix="/v1/quotas", tags=["quotas"])


@router.get("", responses=documented(401))
def get_quotas(service: CurrentService, caller: CurrentCaller) -> QuotasAnswer:
    """Say what the tenant may have at once, and has. The service's operator sets it."""
    with service.database.read() as session:
        limits = limits_of(session, caller.tenant_id)
        used: Mapping[str, int | None] = {
            JOBS_QUEUED.name: queued_jobs(session, caller.tenant_id),
            JOBS_RUNNING.name: running_jobs(session, caller.tenant_id),
            STORED_BYTES.name: stored_bytes(session, caller.tenant_id),
            REQUESTS_PER_MINUTE.name: _requests(),
        }
    return QuotasAnswer(
        items=[
            QuotaAnswer(name=name, limit=limits[name], used=used[name], unit=quota.unit, description=quota.words)
            for name, quota in QUOTAS.items()
        ]
    )


def _requests() -> int | None:
    """Those of the last minute, this one among them."""
    rate = origin.current().rate
    return rate.most - rate.remaining if isinstance(rate, Rate) else None

"""The audit log of the caller's tenant."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from publisher.api.audit_schema import AuditAnswer
from publisher.api.authentication import CurrentCaller
from publisher.api.errors import documented
from publisher.api.filters import time_filter
from publisher.api.paging import Page, RequestedPage
from publisher.api.service import CurrentService
from publisher.store import audit
from publisher.store.audit import AuditFilters
from publisher.store.models import AuditEntry
from publisher.store.paging import newest_first

router = APIRouter(prefix="/v1/audit", tags=["audit"])


def audit_filters(
    action: Annotated[str | None, Query(max_length=100, description="job.cancel, or job for all done to jobs")] = None,
    resource: Annotated[
        str | None, Query(max_length=200, description="what was changed, or is related to it: an id or a repository")
    ] = None,
    key_id: Annotated[str | None, Query(max_length=64, description="only what was done by this key")] = None,
    created_after: Annotated[float | None, time_filter("done then or later")] = None,
    created_before: Annotated[float | None, time_filter("done before then")] = None,
) -> AuditFilters:
    return AuditFilters(action, resource, key_id, created_after, created_before)


@router.get("", responses=documented(401))
def list_audit_log(
    service: CurrentService,
    caller: CurrentCaller,
    page: RequestedPage,
    filters: Annotated[AuditFilters, Depends(audit_filters)],
) -> Page[AuditAnswer]:
    """List who did what, when, from where, to which thing. Entries outlive what they tell of."""
    with service.database.read() as session:
        rows = newest_first(session, audit.entries(caller.tenant_id, filters), AuditEntry, page.cursor, page.limit)
    return Page(items=[AuditAnswer.model_validate(row) for row in rows.items], next_cursor=rows.next_cursor)

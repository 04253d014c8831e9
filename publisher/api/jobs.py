"""Jobs: look, cancel, retry, and the numbers they report."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Query

from publisher.api.authentication import CurrentCaller
from publisher.api.errors import documented
from publisher.api.jobs_schema import JobAnswer, JobMetrics, MetricPoint
from publisher.api.paging import Page, RequestedPage
from publisher.api.service import CurrentService
from publisher.jobs import events
from publisher.jobs import service as job_service
from publisher.store.job_queries import list_jobs
from publisher.store.models import Job, JobEvent
from publisher.store.states import JobState
from publisher.store.tenancy import owned

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("", responses=documented(401))
def get_jobs(
    service: CurrentService,
    caller: CurrentCaller,
    page: RequestedPage,
    state: Annotated[list[JobState] | None, Query(description="only these states; may be repeated")] = None,
    variant_id: Annotated[str | None, Query(max_length=64, description="only this variant's")] = None,
) -> Page[JobAnswer]:
    """List jobs."""
    with service.database.read() as session:
        found = list_jobs(
            session,
            caller.tenant_id,
            states=state,
            variant_id=variant_id,
            before=page.cursor,
            limit=page.limit + 1,
        )
    items = [JobAnswer.model_validate(row) for row in found[: page.limit]]
    return Page(items=items, next_cursor=items[-1].id if len(found) > page.limit else None)


@router.get("/{id}", responses=documented(401, 404))
def get_job(id: str, service: CurrentService, caller: CurrentCaller) -> JobAnswer:
    """Get a job."""
    with service.database.read() as session:
        return JobAnswer.model_validate(owned(session, Job, caller.tenant_id, id))


@router.post("/{id}/cancel", responses=documented(401, 404, 409))
def cancel_job(id: str, service: CurrentService, caller: CurrentCaller) -> JobAnswer:
    """Cancel a job. A queued one is cancelled at once; a running one stops within seconds and publishes nothing."""
    with service.database.write() as session:
        owned(session, Job, caller.tenant_id, id)
        return JobAnswer.model_validate(job_service.cancel(session, id))


@router.post("/{id}/retry", responses=documented(401, 404, 409))
def retry_job(id: str, service: CurrentService, caller: CurrentCaller) -> JobAnswer:
    """Queue a failed or cancelled job again. Finished stages are reused."""
    with service.database.write() as session:
        owned(session, Job, caller.tenant_id, id)
        answer = JobAnswer.model_validate(job_service.retry(session, id))
    service.dispatcher.send(id)
    return answer


@router.get("/{id}/metrics", responses=documented(401, 404))
def get_metrics(id: str, service: CurrentService, caller: CurrentCaller) -> JobMetrics:
    """Get what a job has measured so far, as series."""
    with service.database.read() as session:
        owned(session, Job, caller.tenant_id, id)
        return JobMetrics(series=metric_series(events.metrics(session, id)))


def metric_series(reported: Iterable[JobEvent]) -> dict[str, list[MetricPoint]]:
    """Points by rising step; a step that was reported again, by a stage that ran again, counts as last reported."""
    series: dict[str, dict[int, MetricPoint]] = {}
    for event in reported:
        value = event.data["value"]
        number = value if value is not None and math.isfinite(value) else None
        point = MetricPoint(step=event.data["step"], value=number, at=event.at)
        series.setdefault(event.data["name"], {})[point.step] = point
    return {name: [points[step] for step in sorted(points)] for name, points in series.items()}

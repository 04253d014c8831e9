"""Jobs: look, cancel, retry, and the numbers they report."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from publisher.api.authentication import CurrentCaller
from publisher.api.errors import documented
from publisher.api.jobs_schema import JobAnswer, JobMetrics
from publisher.api.paging import Page, RequestedPage
from publisher.api.service import CurrentService
from publisher.jobs import service as job_service
from publisher.store.job_history import metric_series
from publisher.store.models import Job
from publisher.store.paging import newest_first
from publisher.store.states import JobState
from publisher.store.tenancy import owned, readable_by

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
    mine = readable_by(caller.tenant_id, Job)
    if state is not None:
        mine = mine.where(Job.state.in_(state))
    if variant_id is not None:
        mine = mine.where(Job.variant_id == variant_id)
    with service.database.read() as session:
        rows = newest_first(session, mine, Job, page.cursor, page.limit)
    return Page(items=[JobAnswer.model_validate(row) for row in rows.items], next_cursor=rows.next_cursor)


@router.get("/{id}", responses=documented(401, 404))
def get_job(id: str, service: CurrentService, caller: CurrentCaller) -> JobAnswer:
    """Get a job."""
    with service.database.read() as session:
        return JobAnswer.model_validate(owned(session, Job, caller.tenant_id, id))


@router.post("/{id}/cancel", responses=documented(401, 404, 409))
def cancel_job(id: str, service: CurrentService, caller: CurrentCaller) -> JobAnswer:
    """Cancel a job. A queued one is cancelled at once; a running one stops within seconds and publishes nothing.

    One whose commit has been sent is cancelling until the Hub has said whether it was made: then it has succeeded, and
    says that the cancel came too late.
    """
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
        job = owned(session, Job, caller.tenant_id, id)
        return JobMetrics.model_validate({"series": metric_series(session, id, job.event_seq)})

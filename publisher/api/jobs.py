"""Jobs: look, pause, resume, cancel, retry, and the numbers they report."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Query, status
from sqlalchemy.orm import joinedload

from publisher.api.authentication import CurrentCaller
from publisher.api.errors import documented
from publisher.api.filters import BaseModelFilter, ListedFilters, RepoFilter, StateFilter, SweepFilter
from publisher.api.jobs_schema import JobAnswer, JobDetail, JobMetrics, MetricPoint
from publisher.api.paging import Page, RequestedPage
from publisher.api.service import CurrentService
from publisher.jobs import service as job_service
from publisher.jobs.outlook import outlook
from publisher.jobs.removal import remove_job
from publisher.store import filters as filtered
from publisher.store.metric_series import FEWEST_POINTS, MOST_POINTS, POINTS, Window, metric_series
from publisher.store.models import Job, Variant
from publisher.store.paging import newest_first
from publisher.store.resources import load_labels
from publisher.store.states import JobState
from publisher.store.tenancy import owned

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

#: recipes and manifests are large, and a job shows none
_WITH_LABELS = joinedload(Job.variant).load_only(Variant.labels)


@router.get("", responses=documented(401))
def list_jobs(
    service: CurrentService,
    caller: CurrentCaller,
    page: RequestedPage,
    filters: ListedFilters,
    *,
    state: StateFilter = None,
    variant_id: Annotated[str | None, Query(max_length=64, description="only this variant's")] = None,
    base_model_id: BaseModelFilter = None,
    repo_id: RepoFilter = None,
    sweep_id: SweepFilter = None,
) -> Page[JobAnswer]:
    """List jobs."""
    wanted = replace(
        filters,
        states=tuple(state or ()),
        variant_id=variant_id,
        base_model_id=base_model_id,
        repo_id=repo_id,
        sweep_id=sweep_id,
    )
    mine = filtered.jobs(caller.tenant_id, wanted).options(_WITH_LABELS)
    with service.database.read() as session:
        rows = newest_first(session, mine, Job, page.cursor, page.limit)
    return Page(items=[JobAnswer.model_validate(row) for row in rows.items], next_cursor=rows.next_cursor)


@router.get("/{id}", responses=documented(401, 404))
def get_job(id: str, service: CurrentService, caller: CurrentCaller) -> JobDetail:
    """Get a job, with its place in the queue and when it is expected to start and to end."""
    with service.database.read() as session:
        row = owned(session, Job, caller.tenant_id, id)
        load_labels(session, row)
        return JobDetail.seen(row, outlook(session, row, service.settings.lease_seconds))


@router.post("/{id}/cancel", responses=documented(401, 404, 409))
def cancel_job(id: str, service: CurrentService, caller: CurrentCaller) -> JobAnswer:
    """Cancel a job.

    A queued or paused one is cancelled at once; a running one stops within seconds and publishes nothing. One whose
    commit has been sent is cancelling until the Hub has said whether it was made: then it has succeeded, and says that
    the cancel came too late.
    """
    with service.database.write() as session:
        owned(session, Job, caller.tenant_id, id)
        return JobAnswer.model_validate(job_service.cancel(session, id))


@router.post("/{id}/pause", responses=documented(401, 404, 409))
def pause_job(id: str, service: CurrentService, caller: CurrentCaller) -> JobAnswer:
    """Pause a job. A queued one is paused at once; a running one saves its state and stops within seconds.

    It keeps its place, costs no try, and holds no worker until it is resumed. One that publishes already is not paused.
    """
    with service.database.write() as session:
        owned(session, Job, caller.tenant_id, id)
        return JobAnswer.model_validate(job_service.pause(session, id))


@router.post("/{id}/resume", responses=documented(401, 404, 409))
def resume_job(id: str, service: CurrentService, caller: CurrentCaller) -> JobAnswer:
    """Queue a paused job again, in its old place. It goes on from the state that it saved."""
    with service.database.write() as session:
        owned(session, Job, caller.tenant_id, id)
        answer = JobAnswer.model_validate(job_service.resume(session, id))
    if answer.state is JobState.QUEUED:
        service.dispatcher.send(id)
    return answer


@router.post("/{id}/retry", responses=documented(401, 404, 409))
def retry_job(id: str, service: CurrentService, caller: CurrentCaller) -> JobAnswer:
    """Queue a failed or cancelled job again. Finished stages are reused."""
    with service.database.write() as session:
        owned(session, Job, caller.tenant_id, id)
        answer = JobAnswer.model_validate(job_service.retry(session, id))
    service.dispatcher.send(id)
    return answer


@router.delete("/{id}", status_code=status.HTTP_204_NO_CONTENT, responses=documented(401, 404, 409))
def delete_job(id: str, service: CurrentService, caller: CurrentCaller) -> None:
    """Forget a job that has ended, with its events, attempts and log. Its variant stays, and what it published."""
    with service.database.write() as session:
        remove_job(session, owned(session, Job, caller.tenant_id, id))


def series_window(
    points: Annotated[
        int, Query(ge=FEWEST_POINTS, le=MOST_POINTS, description="of each series, at most; a longer one is thinned")
    ] = POINTS,
    name: Annotated[list[str] | None, Query(max_length=100, description="only these series; may be repeated")] = None,
    from_step: Annotated[int | None, Query(ge=0, le=2**62, description="only steps from here on")] = None,
    to_step: Annotated[int | None, Query(ge=0, le=2**62, description="only steps up to here")] = None,
) -> Window:
    return Window(points, name or (), from_step, to_step)


@router.get("/{id}/metrics", responses=documented(401, 404))
def get_job_metrics(
    id: str, service: CurrentService, caller: CurrentCaller, window: Annotated[Window, Depends(series_window)]
) -> JobMetrics:
    """Get what a job has measured so far, as series of at most `points` points.

    A series that is longer is thinned to points of its own: the first and the last, and the lowest and the highest of
    every stretch between, so that no spike is lost. `from_step` and `to_step` look closer.
    """
    with service.database.read() as session:
        job = owned(session, Job, caller.tenant_id, id)
        found = metric_series(session, id, job.event_seq, window)
    series = {name: [MetricPoint.model_validate(point) for point in one.points] for name, one in found.items()}
    return JobMetrics(series=series, thinned=[name for name, one in found.items() if one.is_thinned])

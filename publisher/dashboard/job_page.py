"""The page of one job, what it asks for while the job runs, its log as text, and its end."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import HTMLResponse, JSONResponse
from sqlalchemy.orm import Session

from publisher.api.job_log import Log, Wanted, WantedLines, as_text
from publisher.api.service import CurrentService, Service
from publisher.api.tenant_events import last_number
from publisher.dashboard.access import ActingVisitor, CurrentVisitor
from publisher.dashboard.answers import PageRoute, page, see_other
from publisher.dashboard.job_stages import read_attempts, stage_rows
from publisher.dashboard.job_view import ShownLog, found_lines, newest_lines, read_view
from publisher.dashboard.presentation import left_words, percent
from publisher.dashboard.variant_numbers import VariantNumbers
from publisher.dashboard.variant_page import publication_page
from publisher.jobs.outlook import expected_before, outlook
from publisher.jobs.publishing import TOO_LATE
from publisher.jobs.removal import remove_job
from publisher.manifest.reports import Publication
from publisher.store.database import clock
from publisher.store.models import Job
from publisher.store.states import JobState
from publisher.store.tenancy import owned

router = APIRouter(prefix="/jobs", route_class=PageRoute)


def searched(
    q: Annotated[str, Query(max_length=200)] = "", attempt: Annotated[int | None, Query(ge=1, le=2**62)] = None
) -> Wanted:
    """As a form sends it: an empty field looks for nothing."""
    return Wanted(q or None, attempt)


SearchedLines = Annotated[Wanted, Depends(searched)]


@router.get("/{id}")
def job(id: str, service: CurrentService, visitor: CurrentVisitor, wanted: SearchedLines) -> HTMLResponse:
    with service.database.read() as session:
        number = last_number(session, visitor.tenant_id)
        row = owned(session, Job, visitor.tenant_id, id)
        now, view = clock(session), read_view(session, row)
        ahead = outlook(session, row, service.settings.lease_seconds)
        expected = expected_before(session, row) if row.state.finished else ahead.stages
        return page(
            "job.html",
            visitor=visitor,
            number=number,
            now=now,
            job=row,
            view=view,
            max_attempts=service.settings.max_attempts,
            too_late=TOO_LATE,
            ahead=ahead,
            stages=stage_rows(row, view.steps, expected, now),
            attempts=read_attempts(session, row),
            result=_result(row, service),
            wanted=wanted,
            log=_log(session, row, service, wanted),
        )


def _log(session: Session, row: Job, service: Service, wanted: Wanted) -> ShownLog:
    """No further than the page: what comes after that is the stream's."""
    if wanted.q is None and wanted.attempt is None:
        return newest_lines(session, row)
    log = Log.of(service, row.tenant_id, row.id, wanted)
    return found_lines(replace(log, until=min(log.until, row.event_seq)))


def _result(row: Job, service: Service) -> dict[str, Any] | None:
    """What came of a job that succeeded."""
    if row.state is not JobState.SUCCEEDED:
        return None
    publication = Publication.model_validate(row.variant.publication) if row.variant.publication else None
    return {
        "numbers": VariantNumbers.of(row.variant),
        "publication": publication,
        "url": publication_page(publication, service.settings) if publication else None,
    }


@router.get("/{id}/outlook")
def left(id: str, service: CurrentService, visitor: CurrentVisitor) -> JSONResponse:
    """How far a job is, for its bar between two renderings."""
    with service.database.read() as session:
        row = owned(session, Job, visitor.tenant_id, id)
        ahead = outlook(session, row, service.settings.lease_seconds)
        now = clock(session)
    return JSONResponse({"percent": percent(ahead.share), "left": left_words(ahead.earliest, ahead.latest, now)})


@router.get("/{id}/log.txt")
def log_text(id: str, service: CurrentService, visitor: CurrentVisitor, wanted: WantedLines) -> Response:
    """The API's download, for a session instead of a key."""
    return as_text(Log.of(service, visitor.tenant_id, id, wanted))


@router.post("/{id}/delete")
def delete(id: str, service: CurrentService, visitor: ActingVisitor) -> Response:
    with service.database.write() as session:
        remove_job(session, owned(session, Job, visitor.tenant_id, id))
    return see_other("/jobs")

"""A job's log: searched and paged as JSON, or all of it as text; and the attempts that it was written in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import Response, StreamingResponse

from publisher.api.authentication import CurrentCaller
from publisher.api.errors import documented
from publisher.api.jobs_schema import AttemptAnswer, AttemptPage, LogLine, LogPage
from publisher.api.service import CurrentService, Service
from publisher.store.database import Database
from publisher.store.job_history import attempt_of, attempts_before, log_after
from publisher.store.models import Job
from publisher.store.tenancy import owned

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

#: lines read at once
BATCH = 500

Number = Annotated[int | None, Query(ge=1, le=2**62, description="next_cursor of the page before")]
Limit = Annotated[int, Query(ge=1, le=200, description="items per page")]


@dataclass(frozen=True)
class Wanted:
    """Which lines of a log."""

    q: str | None
    attempt: int | None


def wanted(
    q: Annotated[
        str | None, Query(min_length=1, max_length=200, description="text in the message, in any case")
    ] = None,
    attempt: Annotated[int | None, Query(ge=1, le=2**62, description="number of one of the job's attempts")] = None,
) -> Wanted:
    return Wanted(q, attempt)


WantedLines = Annotated[Wanted, Depends(wanted)]


@dataclass(frozen=True)
class Log:
    """Lines with a number above `after` and up to `until` whose message holds `q`."""

    database: Database
    job_id: str
    after: int
    until: int
    q: str | None

    @classmethod
    def of(cls, service: Service, tenant_id: str, job_id: str, wanted: Wanted) -> Log:
        """As far as it is written now. NotFound if the tenant has no such job, or the job no such attempt."""
        with service.database.read() as session:
            job = owned(session, Job, tenant_id, job_id)
            after, until = 0, job.event_seq
            if wanted.attempt is not None:
                attempt = attempt_of(session, job_id, wanted.attempt)
                after, until = attempt.first_event, attempt.last_event or until
        return cls(service.database, job_id, after, until, wanted.q)

    def batches(self, after: int = 0) -> Iterator[list[LogLine]]:
        """Oldest first; no connection is held between two of them, however slowly they are taken."""
        after = max(after, self.after)
        while True:
            with self.database.read() as session:
                found = log_after(session, self.job_id, after, self.until, BATCH)
            yield [line for line in map(LogLine.of, found) if self._holds(line)]
            if len(found) < BATCH:
                return
            after = found[-1].seq

    def _holds(self, line: LogLine) -> bool:
        # not by SQL: the two databases do not agree on the case of letters beyond ASCII
        return self.q is None or self.q.casefold() in line.message.casefold()


@router.get(
    "/{id}/log",
    response_model=LogPage,
    responses=documented(401, 404) | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def get_log(
    id: str,
    service: CurrentService,
    caller: CurrentCaller,
    wanted: WantedLines,
    *,
    cursor: Number = None,
    limit: Limit = 50,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> LogPage | Response:
    """Search a job's log. With `Accept: text/plain` all lines come at once, as `/log.txt` sends them."""
    log = Log.of(service, caller.tenant_id, id, wanted)
    if accept.startswith("text/plain"):
        return as_text(log)
    lines = list(islice(chain.from_iterable(log.batches(cursor or 0)), limit + 1))
    return LogPage(items=lines[:limit], next_cursor=lines[limit - 1].seq if len(lines) > limit else None)


@router.get(
    "/{id}/log.txt",
    response_class=StreamingResponse,
    responses=documented(401, 404) | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def download_log(id: str, service: CurrentService, caller: CurrentCaller, wanted: WantedLines) -> Response:
    """Download a job's log: a line for each message, with its time in UTC and its stage."""
    return as_text(Log.of(service, caller.tenant_id, id, wanted))


def as_text(log: Log) -> Response:
    """All of it, as a file to keep."""
    text = ("".join(map(str, lines)).encode(errors="backslashreplace") for lines in log.batches())
    headers = {
        "Content-Disposition": f'attachment; filename="{log.job_id}.txt"',
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(text, media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/{id}/attempts", responses=documented(401, 404))
def list_attempts(
    id: str, service: CurrentService, caller: CurrentCaller, cursor: Number = None, limit: Limit = 50
) -> AttemptPage:
    """List a job's attempts, those before a retry too. `?attempt=NUMBER` shows the log of one."""
    with service.database.read() as session:
        job = owned(session, Job, caller.tenant_id, id)
        rows = attempts_before(session, id, cursor, limit + 1)
        items = [AttemptAnswer.of(row, job) for row in rows[:limit]]
    return AttemptPage(items=items, next_cursor=items[-1].number if len(rows) > limit else None)

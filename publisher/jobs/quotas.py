"""A tenant's quotas of jobs: how many wait in the queue, how many workers hold.

Who counts and then adds one holds the tenant's turn until its transaction ends, so that two at once cannot both find
the last place. It is taken before jobs' and tenants' rows are locked: nobody who holds it waits for one who waits for
it.
"""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from publisher.errors import RequestFault
from publisher.store.models import Job
from publisher.store.quotas import (
    JOBS_QUEUED,
    JOBS_RUNNING,
    full_tenants,
    is_limited,
    limit_of,
    queued_jobs,
    running_jobs,
)

#: PostgreSQL's advisory locks are numbers: their first halves, "quoj" and "quob" in ASCII
_LOCKS = {"jobs": 0x71756F6A, "bytes": 0x71756F62}
#: seconds after which a place may have become free
_RETRY_AFTER = 30


class QuotaExceeded(RequestFault):
    """A tenant has all that it may have; `retry_after` where some of it ends by itself."""

    status = 429
    slug = "quota-exceeded"
    title = "Quota exceeded"

    def __init__(self, message: str, *, field: str | None = None, way_out: str | None = None) -> None:
        super().__init__(message, field=field, way_out=way_out)
        self.retry_after = _RETRY_AFTER


def take_turn(session: Session, tenant_id: str, of: str = "jobs", *, wait: bool = True) -> bool:
    """Be the only one who counts this tenant's quota `of` jobs or bytes until the transaction ends; False if another
    one is, and `wait` is not wanted. SQLite has one writer at a time anyway."""
    if session.get_bind().dialect.name != "postgresql":
        return True
    number = func.hashtext(tenant_id)
    if wait:
        session.execute(select(func.pg_advisory_xact_lock(_LOCKS[of], number)))
        return True
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_LOCKS[of], number))))


def refuse_over_queue(session: Session, tenant_id: str) -> None:
    """QuotaExceeded where one more queued job would be more than the tenant may have. Before any other lock."""
    if limit_of(session, tenant_id, JOBS_QUEUED) is None:
        return
    take_turn(session, tenant_id)
    refuse_full_queue(session, tenant_id)


def refuse_full_queue(session: Session, tenant_id: str) -> None:
    """The same as things stand, for whoever only wants to know: somebody else may take the last place meanwhile."""
    most = limit_of(session, tenant_id, JOBS_QUEUED)
    queued = 0 if most is None else queued_jobs(session, tenant_id)
    if most is not None and queued >= most:
        raise QuotaExceeded(
            f"{queued} of your jobs wait in the queue; {JOBS_QUEUED.name} allows {most}.",
            way_out="Wait until some have started, cancel some, or ask the service's operator for more.",
        )


class Places:
    """Room for running jobs, as one transaction that claims a job sees it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turns = 0
        #: most installations limit nobody: one question tells
        self._is_limited = is_limited(session, JOBS_RUNNING)

    def full_tenants(self) -> list[str]:
        """Ids of tenants with as many running as they may have."""
        return list(full_tenants(self._session)) if self._is_limited else []

    def has_room(self, job_id: str) -> bool:
        """Whether the job's tenant may have one more running. Only the first tenant's turn is waited for: two who wait
        for each other's would wait for ever; a job that is passed over is sent again."""
        if not self._is_limited:
            return True
        tenant_id = self._session.scalar(select(Job.tenant_id).where(Job.id == job_id))
        most = None if tenant_id is None else limit_of(self._session, tenant_id, JOBS_RUNNING)
        if tenant_id is None or most is None:
            return True
        if not take_turn(self._session, tenant_id, wait=self._turns == 0):
            return False
        self._turns += 1
        return running_jobs(self._session, tenant_id) < most

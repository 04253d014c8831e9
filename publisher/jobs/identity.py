"""What a try is known by, in logs and traces."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from publisher.jobs.leases import Lease
from publisher.store.models import Job


@dataclass(frozen=True)
class JobIdentity:
    """`attempt` counts tries, `worker` has the lease; both as of when it was read. `traceparent`: of the request that
    the job goes back to."""

    job: str
    variant: str
    tenant: str
    attempt: int
    worker: str | None
    traceparent: str | None

    def as_fields(self) -> dict[str, str | int | None]:
        """Of a log line."""
        return {
            "job": self.job,
            "variant": self.variant,
            "tenant": self.tenant,
            "attempt": self.attempt,
            "worker": self.worker,
        }

    def as_attributes(self) -> dict[str, str | int]:
        """Of a span."""
        return {f"loram.{name}": value for name, value in self.as_fields().items() if value is not None}


def identity_of(session: Session, lease: Lease) -> JobIdentity | None:
    """None if the job does not exist any more."""
    known = select(Job.id, Job.variant_id, Job.tenant_id, Job.attempt, Job.worker, Job.traceparent)
    found = session.execute(known.where(Job.id == lease.job_id)).one_or_none()
    return None if found is None else JobIdentity(*found)

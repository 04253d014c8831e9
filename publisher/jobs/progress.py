"""How far the running stage of a job is, by what it told last."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from publisher.jobs.forecast import Phase
from publisher.store import job_history
from publisher.store.models import Job, JobAttempt
from publisher.store.states import ACTIVE, EventKind


@dataclass(frozen=True)
class Progress:
    """Of the running stage, which `began` at that time. `first_done` and `first_at` are of its first report in this
    unit: the speed counts from there."""

    stage: str
    done: float
    total: float
    unit: str
    at: float
    first_done: float
    first_at: float
    began: float

    @property
    def percent(self) -> float:
        return min(100.0, 100 * self.done / self.total) if self.total else 0.0

    @property
    def phase(self) -> Phase:
        return Phase(
            unit=self.unit,
            first_done=self.first_done,
            first_at=self.first_at - self.began,
            done=self.done,
            total=self.total,
            at=self.at - self.began,
        )


@dataclass(frozen=True)
class Began:
    """The stage that runs, and since when, in seconds since 1970."""

    stage: str
    at: float


def stage_began(session: Session, job: Job) -> Began | None:
    """None between stages."""
    current = next(((stage, said) for stage, said in job.stages.items() if said.get("state") == "started"), None)
    if current is None or job.state not in ACTIVE:
        return None
    stage, said = current
    if "at" in said:
        return Began(stage, said["at"])
    # an older worker does not tell: read back through all that the stage has told
    told = job_history.last_of_kind(session, job.id, EventKind.STAGE, job.event_seq, 1)
    return Began(stage, told[0].at) if told else None


def read_progress(session: Session, job: Job, began: Began | None) -> Progress | None:
    """The last report of the stage that `began`; None if it has not reported yet."""
    told = job_history.last_of_kind(session, job.id, EventKind.PROGRESS, job.event_seq, 1)
    attempt = session.get(JobAttempt, (job.id, job.lease_token))
    after = attempt.first_event if attempt else 0
    if began is None or not told or told[0].seq < after or told[0].data["stage"] != began.stage:
        return None
    data = told[0].data
    first = job_history.first_progress_after(session, told[0], after)
    return Progress(
        stage=data["stage"],
        done=data["done"],
        total=data["total"],
        unit=data["unit"],
        at=told[0].at,
        first_done=first.data["done"],
        first_at=first.at,
        began=began.at,
    )

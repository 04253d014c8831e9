"""The workers that are there: what each holds, and what it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Float, String, bindparam, select
from sqlalchemy.orm import Session

from publisher.plan.align import Machine
from publisher.plan.capacity import Capacity, missing, suitable
from publisher.plan.needs import Needs
from publisher.plan.queues import NAMES
from publisher.store.database import database_now
from publisher.store.models import Job, Worker
from publisher.store.states import ACTIVE


@dataclass(frozen=True)
class Fleet:
    """Workers that were seen lately."""

    workers: Sequence[Worker]

    @cached_property
    def capacities(self) -> list[Capacity]:
        return [capacity_of(worker) for worker in self.workers]

    def suits(self, worker: Worker, needs: Needs | None) -> bool:
        """Whether a job is for this one of the workers."""
        chosen = suitable(needs, self.capacities)
        return any(each.id == worker.id and suits for each, suits in zip(self.workers, chosen, strict=True))

    def suitable_ids(self, needs: Needs | None) -> frozenset[str]:
        chosen = suitable(needs, self.capacities)
        return frozenset(each.id for each, suits in zip(self.workers, chosen, strict=True) if suits)

    def missing(self, needs: Needs | None) -> str | None:
        """What a job waits for that none of the workers is for; None: one is."""
        return missing(needs, self.capacities)


# made once: a worker asks before every job
_LATELY = Worker.seen_at > database_now() - bindparam("patience", type_=Float)
_SEEN = select(Worker).where(_LATELY | (Worker.id == bindparam("and_also", type_=String))).order_by(Worker.id)


def live_fleet(session: Session, patience: float, *, and_also: str | None = None) -> Fleet:
    """Workers seen within `patience` seconds, and the one of this id however long ago that was."""
    return Fleet(list(session.scalars(_SEEN, {"patience": patience, "and_also": and_also})))


def busy_workers(session: Session) -> frozenset[str]:
    """The ids of those that have a job."""
    return frozenset(name for name in session.scalars(select(Job.worker).where(Job.state.in_(ACTIVE))) if name)


def capacity_of(worker: Worker) -> Capacity:
    """Queues that are all there are do not restrict it."""
    known = machine_of(worker)
    queues = None if worker.queues is None else frozenset(worker.queues) & frozenset(NAMES)
    return Capacity(known, worker.memory_bytes, worker.devices, queues)


def machine_of(worker: Worker) -> Machine:
    """Workers of before tell it by their device's name alone."""
    if worker.kind is not None:
        return Machine(worker.kind)
    return Machine.GPU if worker.device.startswith("cuda") else Machine.CPU

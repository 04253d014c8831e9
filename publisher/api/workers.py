"""Workers: the machines that jobs run on. They are everybody's; which jobs they run is not."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy.orm import Session

from publisher.api.authentication import CurrentCaller
from publisher.api.errors import documented
from publisher.api.service import CurrentService
from publisher.api.workers_schema import WorkerAnswer, Workers, WorkerState
from publisher.jobs.fleet import busy_workers, live_fleet
from publisher.store.resources import all_workers

router = APIRouter(prefix="/v1/workers", tags=["workers"])


@router.get("", responses=documented(401))
def list_workers(service: CurrentService, caller: CurrentCaller) -> Workers:
    """List workers, those that were seen last at first; one that is away for a day is forgotten."""
    with service.database.read() as session:
        return Workers(items=known_workers(session, service.settings.lease_seconds))


def known_workers(session: Session, patience: float) -> list[WorkerAnswer]:
    """Those seen last at first. `patience`: seconds after which a silent one is away."""
    live, busy = {worker.id for worker in live_fleet(session, patience).workers}, busy_workers(session)
    return [WorkerAnswer.of(row, WorkerState.of(row.id, live, busy)) for row in all_workers(session)]

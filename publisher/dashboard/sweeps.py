"""Pages of sweeps: the list; one with its jobs and its variants beside each other; cancel and delete."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from publisher.api import sweeps as api
from publisher.api.service import CurrentService
from publisher.api.sweeps_schema import SweepSummary
from publisher.api.tenant_events import last_number
from publisher.dashboard.access import ActingVisitor, CurrentVisitor
from publisher.dashboard.answers import PageRoute, page, see_other
from publisher.dashboard.comparison import Comparison, WantedChoice
from publisher.dashboard.listing import PAGE, Cursor
from publisher.dashboard.recipe_view import path_words, value_words
from publisher.store import sweeps
from publisher.store.database import clock
from publisher.store.models import BaseModel, Sweep
from publisher.store.paging import newest_first
from publisher.store.resources import base_models_by_id
from publisher.store.states import JobState
from publisher.store.tenancy import owned, readable_by

router = APIRouter(prefix="/sweeps", route_class=PageRoute)


@dataclass(frozen=True)
class Entry:
    """A sweep, how far it is, and its base model: None if that was deleted."""

    sweep: SweepSummary
    base: BaseModel | None

    @property
    def vary(self) -> list[tuple[str, list[str]]]:
        """What it varies, and the values, in words."""
        return [(path_words(path), [*map(value_words, values)]) for path, values in self.sweep.vary.items()]

    @property
    def states(self) -> list[tuple[JobState, int]]:
        return [(state, count) for state in JobState if (count := self.sweep.states.get(state))]

    @property
    def jobs(self) -> int:
        return sum(self.sweep.states.values())

    @property
    def ended(self) -> int:
        return sum(count for state, count in self.sweep.states.items() if state.finished)


@router.get("")
def list_sweeps(service: CurrentService, visitor: CurrentVisitor, cursor: Cursor = None) -> HTMLResponse:
    with service.database.read() as session:
        number = last_number(session, visitor.tenant_id)
        rows = newest_first(session, readable_by(visitor.tenant_id, Sweep), Sweep, cursor, PAGE)
        states = sweeps.states_of(session, [row.id for row in rows.items])
        told = [SweepSummary.of(row, states[row.id]) for row in rows.items]
        bases = base_models_by_id(session, visitor.tenant_id, {sweep.base_model_id for sweep in told})
        return page(
            "sweeps.html",
            visitor=visitor,
            now=clock(session),
            number=number,
            sweeps=[Entry(sweep, bases.get(sweep.base_model_id)) for sweep in told],
            cursor=cursor,
            next_cursor=rows.next_cursor,
        )


@router.get("/{id}")
def sweep(id: str, service: CurrentService, visitor: CurrentVisitor, choice: WantedChoice) -> HTMLResponse:
    with service.database.read() as session:
        number = last_number(session, visitor.tenant_id)
        row = owned(session, Sweep, visitor.tenant_id, id)
        variants = sweeps.variants_of(session, id)
        told = SweepSummary.of(row, Counter(each.jobs[-1].state for each in variants if each.jobs))
        bases = base_models_by_id(session, visitor.tenant_id, {told.base_model_id})
        return page(
            "sweep.html",
            visitor=visitor,
            now=clock(session),
            number=number,
            entry=Entry(told, bases.get(told.base_model_id)),
            comparison=Comparison.of(variants, choice, f"/sweeps/{id}", vary=list(told.vary)),
        )


@router.post("/{id}/cancel")
def cancel(id: str, service: CurrentService, visitor: ActingVisitor) -> Response:
    api.cancel_sweep(id, service, visitor.caller)
    return see_other(f"/sweeps/{id}")


@router.post("/{id}/delete")
def delete(id: str, service: CurrentService, visitor: ActingVisitor) -> Response:
    api.delete_sweep(id, service, visitor.caller)
    return see_other("/sweeps")

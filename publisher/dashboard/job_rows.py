"""Jobs as lines of a list: the page of all of them, and single lines anew when something happened to their jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query
from sqlalchemy.orm import Session, defer, joinedload

from publisher.dashboard.listing import Cursor, Listing, Number, OrNone, Sort, Word
from publisher.jobs.waiting import WaitKind
from publisher.plan.queues import NAMES
from publisher.recipe.stages import Stage
from publisher.store import job_history
from publisher.store.filters import TURN, Filters
from publisher.store.models import BaseModel, Job, Variant
from publisher.store.states import JobState

#: recipes and manifests are large, and a line shows none
WITH_NAMES = (
    defer(Job.needs),
    joinedload(Job.variant).load_only(Variant.publish_repo_id, Variant.base_model_id),
    joinedload(Job.variant).joinedload(Variant.base_model).load_only(BaseModel.repo_id, BaseModel.path),
)


@dataclass(frozen=True)
class Entry:
    """A line; `stage` and `percent` of what a worker does now, None where it has not said how far it is."""

    job: Job
    stage: str | None = None
    percent: float | None = None

    @property
    def base_model(self) -> BaseModel:
        return self.job.variant.base_model


def entries(session: Session, jobs: Sequence[Job]) -> list[Entry]:
    """One question for the progress of all of them."""
    live = [job.id for job in jobs if not job.state.finished]
    told = job_history.last_progress(session, live) if live else {}
    return [_entry(job, told.get(job.id)) for job in jobs]


def _entry(job: Job, told: dict[str, Any] | None) -> Entry:
    if told is None:
        return Entry(job, None if job.state.finished else job.stage)
    done, total = told["done"], told["total"]
    return Entry(job, told["stage"], min(100.0, 100 * done / total) if total else 0.0)


@dataclass(frozen=True)
class Asked:
    """What the page of jobs was asked for."""

    listing: Listing
    filters: Filters


def asked(
    q: Word = "",
    state: Annotated[JobState | None, OrNone, Query()] = None,
    *,
    stage: Annotated[Stage | None, OrNone, Query()] = None,
    base_model: Word = "",
    worker: Word = "",
    queue: Word = "",
    waiting: Word = "",
    sort: Sort = "",
    cursor: Cursor = None,
    number: Number = 1,
) -> Asked:
    words = {"q": q, "state": state, "stage": stage, "base_model": base_model}
    words |= {"worker": worker, "queue": queue, "waiting": waiting}
    listing = Listing.of("/jobs", sort, cursor, number, **words)
    given = listing.fields.get
    filters = Filters(
        search=given("q"),
        states=() if state is None else (state,),
        stage=given("stage"),
        base_model_id=given("base_model"),
        worker=given("worker"),
        queue=given("queue"),
        waiting_for=given("waiting"),
    )
    return Asked(listing, filters)


CurrentlyAsked = Annotated[Asked, Depends(asked)]
RowIds = Annotated[list[str], Query(alias="id", max_length=50)]

#: word in the address → in words
WAITING = {TURN: "its turn"} | {kind.value: kind.words for kind in WaitKind}
QUEUES = {name: f"{name} GiB" if name.isdecimal() else name for name in NAMES}
STAGES = {stage.value: stage.value for stage in Stage}
#: in the order in which jobs go through them
STATES = (
    JobState.QUEUED,
    JobState.RUNNING,
    JobState.PAUSING,
    JobState.PAUSED,
    JobState.CANCELLING,
    JobState.SUCCEEDED,
    JobState.FAILED,
    JobState.CANCELLED,
)
SORTS = {
    "": "newest first",
    "created": "oldest first",
    "name": "by name",
    "state": "by state",
    "-took": "longest first",
}


def narrowed_by(listing: Listing, base_models: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """What narrows the list down besides state and search: the field, its value in words, the address without it."""
    names = {"base_model": base_models, "waiting": WAITING, "queue": QUEUES}
    words = {"base_model": "base model", "waiting": "waiting for"}
    for name, value in listing.fields.items():
        if name not in {"q", "state"}:
            yield words.get(name, name), names.get(name, {}).get(value, value), listing.to(**{name: None})

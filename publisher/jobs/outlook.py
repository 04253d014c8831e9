"""How many jobs are before a queued one, and when it is expected to start and to end: what the database knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from publisher.base_model.facts import BaseModelFacts
from publisher.errors import PublisherError
from publisher.jobs.fleet import Fleet, live_fleet
from publisher.jobs.forecast import Left, StageSpans, Turn, is_over, learn, left_of, of_stages, planned, start_of
from publisher.jobs.progress import read_progress, stage_began
from publisher.jobs.shapes import read_needs
from publisher.jobs.turns import due
from publisher.plan.plan import make_plan
from publisher.recipe.stages import planned_stages
from publisher.recipe.stored import stored_recipe
from publisher.store.database import clock
from publisher.store.models import Job, Worker
from publisher.store.resources import latest_worker
from publisher.store.states import ACTIVE, JobState
from publisher.store.variant_content import Unreadable, recipe_of

#: earlier jobs that are learnt from, the newest
_EARLIER = 10
#: with more jobs before it than this nothing is said of when
_AHEAD = 500
#: plans are made of so many recipes that nothing has been learnt of, at 20 ms each for a large model
_PLANS = 10


@dataclass(frozen=True)
class Outlook:
    """`position` 1 is next of the jobs that the same workers are for, or wait for such a worker; None: not queued.
    `missing`: why no worker that is there takes it. Times in seconds since 1970; None where nothing is known. What is
    reckoned with is that every stage has to be made. Of a running job also: it ends between `earliest` and `latest`,
    and `share` of all its time has passed, from 0 to 1."""

    position: int | None = None
    start: float | None = None
    end: float | None = None
    missing: str | None = None
    earliest: float | None = None
    latest: float | None = None
    share: float | None = None
    #: what each stage is expected to take, as far as it was looked for
    stages: StageSpans = field(default_factory=dict)

    @classmethod
    def of_running(cls, job: Job, now: float, left: Left | None, stages: StageSpans) -> Outlook:
        if left is None:
            return cls(start=job.started_at, stages=stages)
        span = left.span
        return cls(
            start=job.started_at,
            end=now + span.likely,
            earliest=now + span.low,
            latest=now + span.high,
            share=left.share,
            stages=stages,
        )


def outlook(session: Session, job: Job, patience: float) -> Outlook:
    """Of a job in any state. `patience`: seconds after which a silent worker is gone."""
    return outlooks(session, [job], patience)[job.id]


def outlooks(session: Session, jobs: Sequence[Job], patience: float) -> dict[str, Outlook]:
    """Of each of these jobs, by one look at queue and workers."""
    if all(job.state.finished for job in jobs):
        return {job.id: Outlook() for job in jobs}
    view = _View(session, clock(session), live_fleet(session, patience))
    return {job.id: _outlook(view, job) for job in jobs}


def _outlook(view: _View, job: Job) -> Outlook:
    if job.state in ACTIVE:
        # the others stop, before their end
        left = view.left(job) if job.state is JobState.RUNNING else None
        return Outlook.of_running(job, view.now, left, view.expected(job))
    if job.state is not JobState.QUEUED:
        return Outlook()
    position, turns = view.ahead(job)
    begins = None if turns is None else start_of(view.suitable(job), turns, view.free_in())
    start = None if begins is None else max(view.now + begins, job.claimable_at)
    seconds = view.seconds(job)
    missing = view.fleet.missing(read_needs(job.needs))
    end = None if start is None or seconds is None else start + seconds
    return Outlook(position, start, end, missing, stages=view.expected(job))


@dataclass
class _View:
    """One look at queue and workers; what was found out for one job serves others of its kind."""

    session: Session
    now: float
    fleet: Fleet
    _expected: dict[str | None, StageSpans] = field(default_factory=dict)
    _asked: dict[str | None, frozenset[str] | None] = field(default_factory=dict)
    _suitable: dict[str | None, frozenset[str]] = field(default_factory=dict)
    _plans: int = 0

    def suitable(self, job: Job) -> frozenset[str]:
        if job.needs_digest not in self._suitable:
            self._suitable[job.needs_digest] = self.fleet.suitable_ids(read_needs(job.needs))
        return self._suitable[job.needs_digest]

    def asked(self, job: Job) -> frozenset[str] | None:
        if job.likeness not in self._asked:
            self._asked[job.likeness] = _asked(job)
        return self._asked[job.likeness]

    def seconds(self, job: Job) -> float | None:
        expected = self.expected(job)
        return None if _lacks(self.asked(job), expected, {}) else of_stages(expected, {}).likely or None

    def left(self, job: Job, *, closely: bool = True) -> Left | None:
        """None where of a stage that is still to come nothing is known. `closely`: with what its stage told last, which
        takes a look at its events."""
        if _lacks(self.asked(job), self.expected(job), job.stages):
            return None
        began = stage_began(self.session, job) if closely else None
        progress = read_progress(self.session, job, began) if began else None
        return left_of(
            self.expected(job),
            job.stages,
            max(0.0, self.now - (job.started_at or self.now)),
            # by the worker's clock, which may not be the database's
            spent=None if began is None else max(0.0, self.now - began.at),
            phase=None if progress is None else progress.phase,
        )

    def expected(self, job: Job) -> StageSpans:
        """Learnt from earlier jobs, or else as planned on the speed of a worker: those that shared a calibration teach
        nothing of how long one takes. Empty: nothing is known."""
        if job.likeness not in self._expected:
            learnt = self._learnt(job)
            lacks = _lacks(self.asked(job), learnt, {})
            self._expected[job.likeness] = {**self._planned(job), **learnt} if lacks else learnt
        return self._expected[job.likeness]

    def _learnt(self, job: Job) -> StageSpans:
        return _learnt(self.session, job, Job.id != job.id)

    def _planned(self, job: Job) -> StageSpans:
        self._plans += 1
        return _planned(self.session, job) if self._plans <= _PLANS else {}

    def free_in(self) -> dict[str, float | None]:
        """Seconds until each worker is free."""
        running = self.session.scalars(select(Job).where(Job.state.in_(ACTIVE), Job.worker.is_not(None)))
        ends = {str(job.worker): self._likely(job) if job.state is JobState.RUNNING else 0.0 for job in running}
        return {worker.id: ends.get(worker.id, 0.0) for worker in self.fleet.workers}

    def _likely(self, job: Job) -> float | None:
        left = self.left(job, closely=False)
        return None if left is None else left.span.likely

    def ahead(self, job: Job) -> tuple[int, Sequence[Turn] | None]:
        """The job's place, and the turns before it; None: too many to look at each."""
        before = (*due(), _comes_before(job))
        first = func.min(Job.id)
        groups = self.session.execute(select(first, func.count()).where(*before).group_by(Job.needs_digest)).all()
        mine = self.suitable(job)
        counts = {
            each.needs_digest: count
            for id, count in groups
            if _compete(mine, self.suitable(each := self.session.get_one(Job, id)))
        }
        if sum(count for _, count in groups) > _AHEAD:
            return sum(counts.values()) + 1, None
        rows = self.session.scalars(select(Job).where(*before).order_by(Job.precedence, Job.id))
        return sum(counts.values()) + 1, [Turn(self.suitable(row), self.seconds(row)) for row in rows]


def expected_before(session: Session, job: Job) -> StageSpans:
    """What was to be expected of a job's stages by those before it, or as planned; empty: nothing is known."""
    learnt = _learnt(session, job, Job.id < job.id)
    return {**_planned(session, job), **learnt} if _lacks(_asked(job), learnt, {}) else learnt


def _asked(job: Job) -> frozenset[str] | None:
    """The stages that its recipe asks for; None where that cannot be read."""
    recipe = recipe_of(job.variant)
    return None if isinstance(recipe, Unreadable) else frozenset(planned_stages(recipe, publishes=True))


def _lacks(asked: frozenset[str] | None, expected: StageSpans, stages: Mapping[str, Any]) -> bool:
    """Whether nothing is known of a stage that is asked for and not over by `stages`, a job's; or of any."""
    return not expected if asked is None else any(not is_over(stages.get(stage)) for stage in asked - set(expected))


def _learnt(session: Session, job: Job, which: ColumnElement[bool]) -> StageSpans:
    # of a job that was taken up again its stages are only what was left of them
    whole = Job.lease_token == 1
    alike = select(Job.stages).where(Job.likeness == job.likeness, Job.state == JobState.SUCCEEDED, whole, which)
    return learn(session.scalars(alike.order_by(Job.id.desc()).limit(_EARLIER)))


def _comes_before(job: Job) -> ColumnElement[bool]:
    return or_(Job.precedence < job.precedence, and_(Job.precedence == job.precedence, Job.id < job.id))


def _compete(mine: frozenset[str], theirs: frozenset[str]) -> bool:
    """For a worker that is there, or both for one that is to come."""
    return bool(mine & theirs) or not (mine or theirs)


def _planned(session: Session, job: Job) -> StageSpans:
    worker: Worker | None = latest_worker(session)
    if worker is None:
        return {}
    variant = job.variant
    texts = json.dumps(variant.base_model.facts), json.dumps(variant.recipe)
    speeds = worker.flops_per_second, worker.fp32_flops_per_second
    return _plan_of(*texts, variant.recipe_version, *speeds)


# reckoned by contents, 20 ms for a large model: whoever looks at a job or a list of them looks again soon
@lru_cache(maxsize=256)
def _plan_of(facts: str, recipe: str, version: int, flops: float, fp32_flops: float) -> StageSpans:
    try:
        base = BaseModelFacts.model_validate_json(facts)
        asked = stored_recipe(json.loads(recipe), version)
        plan = make_plan(
            base.geometry, asked, base_bytes=base.bytes, flops_per_second=flops, fp32_flops_per_second=fp32_flops
        )
    except (ValidationError, PublisherError):
        # also of a recipe that was fine for the version that took it: a job that looks at its queue is none the worse
        return {}
    return planned({stage: 60 * minutes for stage, minutes in plan.minutes.items()})

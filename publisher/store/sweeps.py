"""Queries of sweeps beyond "the tenant's row with this id"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session, selectinload

from publisher.store.models import Job, Variant
from publisher.store.states import JobState


def states_of(session: Session, ids: Sequence[str]) -> dict[str, Counter[JobState]]:
    """Sweep → how many of its jobs are in each state."""
    found: dict[str, Counter[JobState]] = {id: Counter() for id in ids}
    jobs = select(Variant.sweep_id, Job.state, func.count()).join(Job, Job.variant_id == Variant.id)
    counted = session.execute(jobs.where(Variant.sweep_id.in_(ids)).group_by(Variant.sweep_id, Job.state))
    for sweep_id, state, count in counted:
        found[str(sweep_id)][state] = count
    return found


def variants_of(session: Session, id: str) -> Sequence[Variant]:
    """Its variants as they are now, in the order of their values, with jobs and base models."""
    found = select(Variant).where(Variant.sweep_id == id).order_by(Variant.id)
    loaded = found.options(selectinload(Variant.jobs), selectinload(Variant.base_model))
    return session.scalars(loaded.execution_options(populate_existing=True)).all()


def live_jobs(session: Session, id: str) -> Sequence[str]:
    """Ids of its jobs that have not ended, oldest first."""
    ended = [state for state in JobState if state.finished]
    jobs = select(Job.id).join(Variant, Variant.id == Job.variant_id)
    return session.scalars(jobs.where(Variant.sweep_id == id, Job.state.not_in(ended)).order_by(Job.id)).all()

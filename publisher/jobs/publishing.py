"""From when on what a job publishes may be on a Hub: then it comes to its end and is not put aside."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from publisher.recipe.stages import Stage
from publisher.store.models import Job


def publish_has_begun() -> ColumnElement[bool]:
    """Of a row of jobs."""
    return func.coalesce(Job.stage, "") == Stage.PUBLISH.value


def may_have_published(session: Session, job_id: str) -> bool:
    return bool(session.scalar(select(publish_has_begun()).where(Job.id == job_id)))

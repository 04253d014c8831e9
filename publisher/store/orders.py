"""Orders of lists other than newest first. They give ids alone: a database that sorts whole rows carries recipes and
manifests about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, case
from sqlalchemy.orm import Session

from publisher.manifest.verdict import Verdict
from publisher.store.database import database_now
from publisher.store.models import BaseModel, Job, Variant
from publisher.store.states import ACTIVE

Listed = TypeVar("Listed", BaseModel, Variant, Job)
Orders = Mapping[str, ColumnElement[Any]]

#: from the best to what says nothing
_VERDICTS = (
    Verdict.PASSED,
    Verdict.NEGLIGIBLE,
    Verdict.NOT_SIGNIFICANT,
    Verdict.INCONCLUSIVE,
    Verdict.NOT_STATED,
    Verdict.FAILED,
)
_TOOK = case(
    (Job.finished_at.is_not(None), Job.finished_at - Job.started_at),
    (Job.state.in_(ACTIVE), database_now() - Job.started_at),
)

#: word in an address → what it sorts by
JOBS: Orders = {
    "name": Variant.publish_repo_id.expression,
    "state": Job.state.expression,
    "took": _TOOK,
    "created": Job.id.expression,
}
VARIANTS: Orders = {
    "name": Variant.publish_repo_id.expression,
    "reduction": Variant.reduction.expression,
    "verdict": case({verdict.value: rank for rank, verdict in enumerate(_VERDICTS)}, value=Variant.verdict),
    "created": Variant.id.expression,
}
BASE_MODELS: Orders = {
    "name": BaseModel.repo_id.expression,
    "family": BaseModel.facts["geometry"]["family"].as_string(),
    "parameters": BaseModel.facts["parameters"].as_float(),
    "created": BaseModel.id.expression,
}


def ordered(statement: Select[Listed], model: type[Listed], by: ColumnElement[Any], *, descending: bool) -> Select[str]:
    """The ids of these rows by one of the orders above; where nothing is known last, alike ones newest first."""
    ids: Select[str] = statement.with_only_columns(model.id)
    if model is Job and by is JOBS["name"]:
        ids = ids.join(Variant, Variant.id == Job.variant_id)
    return ids.order_by(by.desc().nulls_last() if descending else by.asc().nulls_last(), model.id.desc())


def rows_of(session: Session, statement: Select[Listed], model: type[Listed], ids: list[str]) -> list[Listed]:
    """Those of `statement` with these ids, in the order of the ids."""
    found = {row.id: row for row in session.scalars(statement.where(model.id.in_(ids)))}
    return [found[id] for id in ids if id in found]

"""Lists of a tenant's rows, narrowed down by what is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, CompoundSelect, Select, func, or_, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from publisher.store.labels import has_labels
from publisher.store.models import BaseModel, Corpus, Job, Variant
from publisher.store.states import JobState
from publisher.store.tenancy import readable_by


@dataclass(frozen=True)
class Filters:
    """All have to hold; what is None or empty narrows nothing down. Times in seconds since 1970.

    `repo_id`: where a base model comes from, where a variant is published. A variant's state is its job's; a job's
    labels, base model, repository and sweep are its variant's. `search`: part of the name of the repository or of its
    base model, or the beginning of an id. `stage`, `worker`, `queue` and `waiting_for` (a WaitKind, or TURN where there
    is none) are of jobs.
    """

    labels: Sequence[tuple[str, str]] = ()
    created_after: float | None = None
    created_before: float | None = None
    states: Sequence[JobState] = ()
    base_model_id: str | None = None
    repo_id: str | None = None
    sweep_id: str | None = None
    variant_id: str | None = None
    search: str | None = None
    stage: str | None = None
    worker: str | None = None
    queue: str | None = None
    waiting_for: str | None = None


#: what a queued job waits for beside the kinds of publisher.jobs.waiting.WaitKind
TURN = "turn"


def base_models(tenant_id: str, filters: Filters) -> Select[BaseModel]:
    wanted = [*_created(BaseModel, filters), *has_labels(BaseModel.id, filters.labels)]
    if filters.repo_id is not None:
        wanted.append(BaseModel.repo_id == filters.repo_id)
    if filters.search is not None:
        family = BaseModel.facts["geometry"]["family"].as_string()
        wanted.append(or_(_has(BaseModel.repo_id, filters.search), _has(family, filters.search)))
    return readable_by(tenant_id, BaseModel).where(*wanted)


def corpora(tenant_id: str, filters: Filters) -> Select[Corpus]:
    return readable_by(tenant_id, Corpus).where(*_created(Corpus, filters), *has_labels(Corpus.id, filters.labels))


def variants(tenant_id: str, filters: Filters) -> Select[Variant]:
    wanted = [*_created(Variant, filters), *_of_variant(filters)]
    if filters.search is not None:
        wanted.append(_sought(Variant, Variant.id, tenant_id, filters.search))
    if filters.states:
        jobs = select(Job.variant_id).where(Job.tenant_id == tenant_id, Job.state.in_(filters.states))
        wanted.append(Variant.id.in_(jobs))
    return readable_by(tenant_id, Variant).where(*wanted)


def jobs(tenant_id: str, filters: Filters) -> Select[Job]:
    wanted = [*_created(Job, filters), *_of_job(filters)]
    if filters.variant_id is not None:
        wanted.append(Job.variant_id == filters.variant_id)
    if of_variant := _of_variant(filters):
        wanted.append(Job.variant_id.in_(select(Variant.id).where(Variant.tenant_id == tenant_id, *of_variant)))
    if filters.search is not None:
        wanted.append(_sought(Job, Job.variant_id, tenant_id, filters.search))
    return readable_by(tenant_id, Job).where(*wanted)


def count_by_state(session: Session, tenant_id: str, filters: Filters) -> Counter[JobState]:
    """How many of these jobs are in each state."""
    counted = jobs(tenant_id, filters).with_only_columns(Job.state, func.count()).group_by(Job.state)
    return Counter(dict(session.execute(counted).all()))


def _of_job(filters: Filters) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if filters.states:
        wanted.append(Job.state.in_(filters.states))
    if filters.waiting_for is not None:
        kind = None if filters.waiting_for == TURN else filters.waiting_for
        wanted += [
            Job.state == JobState.QUEUED,
            Job.waiting_kind.is_(None) if kind is None else Job.waiting_kind == kind,
        ]
    for column, value in ((Job.stage, filters.stage), (Job.worker, filters.worker), (Job.queue, filters.queue)):
        if value is not None:
            wanted.append(column == value)
    return wanted


def _has(text: ColumnElement[str] | InstrumentedAttribute[str], part: str) -> ColumnElement[bool]:
    return text.icontains(part, autoescape=True)


def _sought(
    model: type[Variant] | type[Job], variant_id: InstrumentedAttribute[str], tenant_id: str, text: str
) -> ColumnElement[bool]:
    """By the beginning of an id, if it is one, or else by names: with both at once no index would do."""
    if text.startswith(f"{model.id_kind}_"):
        return model.id.startswith(text, autoescape=True)
    return variant_id.in_(_called(tenant_id, text))


def _called(tenant_id: str, part: str) -> CompoundSelect[str]:
    """Variants by where they go, and by what they are made from: each is read from an index."""
    bases = select(BaseModel.id).where(BaseModel.tenant_id == tenant_id, _has(BaseModel.repo_id, part))
    mine = select(Variant.id).where(Variant.tenant_id == tenant_id)
    return union_all(mine.where(_has(Variant.publish_repo_id, part)), mine.where(Variant.base_model_id.in_(bases)))


def _of_variant(filters: Filters) -> list[ColumnElement[bool]]:
    wanted = has_labels(Variant.id, filters.labels)
    if filters.base_model_id is not None:
        wanted.append(Variant.base_model_id == filters.base_model_id)
    if filters.repo_id is not None:
        wanted.append(Variant.publish_repo_id == filters.repo_id)
    if filters.sweep_id is not None:
        wanted.append(Variant.sweep_id == filters.sweep_id)
    return wanted


def _created(model: type[BaseModel | Corpus | Variant | Job], filters: Filters) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if filters.created_after is not None:
        wanted.append(model.created_at >= filters.created_after)
    if filters.created_before is not None:
        wanted.append(model.created_at < filters.created_before)
    return wanted

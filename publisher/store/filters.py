"""Lists of a tenant's rows, narrowed down by what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, select

from publisher.store.labels import has_labels
from publisher.store.models import BaseModel, Corpus, Job, Variant
from publisher.store.states import JobState
from publisher.store.tenancy import readable_by


@dataclass(frozen=True)
class Filters:
    """All have to hold; what is None or empty narrows nothing down. Times in seconds since 1970.

    `repo_id`: where a base model comes from, where a variant is published. A variant's state is its job's; a job's
    labels, base model, repository and sweep are its variant's.
    """

    labels: Sequence[tuple[str, str]] = ()
    created_after: float | None = None
    created_before: float | None = None
    states: Sequence[JobState] = ()
    base_model_id: str | None = None
    repo_id: str | None = None
    sweep_id: str | None = None
    variant_id: str | None = None


def base_models(tenant_id: str, filters: Filters) -> Select[BaseModel]:
    wanted = [*_created(BaseModel, filters), *has_labels(BaseModel.id, filters.labels)]
    if filters.repo_id is not None:
        wanted.append(BaseModel.repo_id == filters.repo_id)
    return readable_by(tenant_id, BaseModel).where(*wanted)


def corpora(tenant_id: str, filters: Filters) -> Select[Corpus]:
    return readable_by(tenant_id, Corpus).where(*_created(Corpus, filters), *has_labels(Corpus.id, filters.labels))


def variants(tenant_id: str, filters: Filters) -> Select[Variant]:
    wanted = [*_created(Variant, filters), *_of_variant(filters)]
    if filters.states:
        jobs = select(Job.variant_id).where(Job.tenant_id == tenant_id, Job.state.in_(filters.states))
        wanted.append(Variant.id.in_(jobs))
    return readable_by(tenant_id, Variant).where(*wanted)


def jobs(tenant_id: str, filters: Filters) -> Select[Job]:
    wanted = _created(Job, filters)
    if filters.states:
        wanted.append(Job.state.in_(filters.states))
    if filters.variant_id is not None:
        wanted.append(Job.variant_id == filters.variant_id)
    if of_variant := _of_variant(filters):
        wanted.append(Job.variant_id.in_(select(Variant.id).where(Variant.tenant_id == tenant_id, *of_variant)))
    return readable_by(tenant_id, Job).where(*wanted)


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

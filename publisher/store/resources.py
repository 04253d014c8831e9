"""Queries of the REST resources beyond "the tenant's row with this id" (tenancy) and pages (paging)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, joinedload, load_only, selectinload

from publisher.base_model.facts import BaseModelFacts
from publisher.errors import NotFound
from publisher.store.database import database_now
from publisher.store.models import BaseModel, Corpus, Job, Sweep, Variant, VariantFile, Worker
from publisher.store.states import JobState
from publisher.store.tenancy import readable_by

_WITHOUT_CONTENT = load_only(Variant.id, Variant.publish_repo_id, Variant.publication)


def find_base_model(session: Session, tenant_id: str, facts: BaseModelFacts) -> BaseModel | None:
    """The oldest that is the same model under the same name."""
    statement = readable_by(tenant_id, BaseModel).where(
        BaseModel.repo_id == facts.repo_id, BaseModel.revision == facts.revision
    )
    rows = session.scalars(statement.order_by(BaseModel.id))
    return next((row for row in rows if row.facts.get("published_as") == facts.published_as), None)


def published_to(session: Session, tenant_id: str, repo_id: str) -> list[Variant]:
    """The tenant's variants that were published to a repository of this name."""
    there = readable_by(tenant_id, Variant).where(Variant.publish_repo_id == repo_id, Variant.publication.is_not(None))
    return list(session.scalars(there))


def takes_over_from(session: Session, tenant_id: str, repo_id: str) -> Variant | None:
    """The newest of the tenant's variants that goes to this repository, published or not."""
    there = readable_by(tenant_id, Variant).where(Variant.publish_repo_id == repo_id)
    return session.scalar(there.order_by(Variant.id.desc()).limit(1).options(_WITHOUT_CONTENT))


def variants_in(session: Session, tenant_id: str, repo_ids: Iterable[str]) -> list[Variant]:
    """The tenant's variants that were published to repositories of these names, the newest first; without their
    manifests, which are large."""
    there = readable_by(tenant_id, Variant).where(
        Variant.publish_repo_id.in_(list(repo_ids)), Variant.publication.is_not(None)
    )
    return list(session.scalars(there.order_by(Variant.id.desc()).options(_WITHOUT_CONTENT)))


def find_corpus(session: Session, tenant_id: str, name: str) -> Corpus | None:
    return session.scalar(readable_by(tenant_id, Corpus).where(Corpus.name == name))


def corpora_by_name(session: Session, tenant_id: str, names: Iterable[str], *, kept: bool = False) -> dict[str, Corpus]:
    """Those of these names that there are; `kept`: nobody deletes them until the transaction ends."""
    found = readable_by(tenant_id, Corpus).where(Corpus.name.in_(list(names)))
    rows = session.scalars(found.with_for_update(read=True) if kept else found)
    return {corpus.name: corpus for corpus in rows}


def corpus_names(session: Session, tenant_id: str, limit: int = 20) -> list[str]:
    found = session.scalars(readable_by(tenant_id, Corpus).order_by(Corpus.name).limit(limit))
    return [corpus.name for corpus in found]


Requested = TypeVar("Requested", Variant, Sweep)


def find_request(session: Session, made: type[Requested], tenant_id: str, idempotency_key: str) -> Requested | None:
    """What an earlier request with this key made."""
    return session.scalar(readable_by(tenant_id, made).where(made.idempotency_key == idempotency_key))


def newest_base_model(session: Session, tenant_id: str) -> BaseModel | None:
    return session.scalar(readable_by(tenant_id, BaseModel).order_by(BaseModel.id.desc()).limit(1))


def base_model_names(session: Session, tenant_id: str, limit: int = 200) -> dict[str, str]:
    """Of the tenant's first base models by name: id → name, with the revision where several have it."""
    rows = readable_by(tenant_id, BaseModel).with_only_columns(BaseModel.id, BaseModel.repo_id, BaseModel.revision)
    found = session.execute(rows.order_by(BaseModel.repo_id, BaseModel.id).limit(limit)).all()
    times = Counter(row.repo_id for row in found)
    return {id: name if times[name] == 1 else f"{name} @ {revision[:7]}" for id, name, revision in found}


def newest_corpus(session: Session, tenant_id: str) -> Corpus | None:
    return session.scalar(readable_by(tenant_id, Corpus).order_by(Corpus.id.desc()).limit(1))


def made_from(session: Session, tenant_id: str, base_model_id: str, limit: int) -> Sequence[Variant]:
    """The newest of the tenant's variants of this base model, with their jobs."""
    made = readable_by(tenant_id, Variant).where(Variant.base_model_id == base_model_id)
    loaded = made.options(joinedload(Variant.base_model), selectinload(Variant.jobs))
    return session.scalars(loaded.order_by(Variant.id.desc()).limit(limit)).all()


def variants_by_id(session: Session, tenant_id: str, ids: Sequence[str]) -> list[Variant]:
    """The tenant's variants with these ids in their order, with jobs and base models; NotFound if one is not there, or
    is somebody else's."""
    rows = readable_by(tenant_id, Variant).where(Variant.id.in_(ids))
    loaded = session.scalars(rows.options(joinedload(Variant.base_model), selectinload(Variant.jobs)))
    found = {row.id: row for row in loaded}
    missing = [id for id in ids if id not in found]
    if missing:
        raise NotFound(f"variant {missing[0]} does not exist.")
    return [found[id] for id in ids]


def base_models_by_id(session: Session, tenant_id: str, ids: Iterable[str]) -> dict[str, BaseModel]:
    """Those of these that there are."""
    rows = session.scalars(readable_by(tenant_id, BaseModel).where(BaseModel.id.in_(list(ids))))
    return {row.id: row for row in rows}


def load_labels(session: Session, job: Job) -> None:
    """Have `job.labels` without its variant's recipe and manifest, which are large."""
    session.get(Variant, job.variant_id, options=[load_only(Variant.labels)])


def unfinished(session: Session, ids: Iterable[str]) -> frozenset[str]:
    """Those of these jobs that are not over: queued, running or paused."""
    rows = session.execute(select(Job.id, Job.state).where(Job.id.in_(list(ids))))
    return frozenset(id for id, state in rows if not state.finished)


def find_file(session: Session, variant_id: str, path: str) -> VariantFile | None:
    return session.get(VariantFile, (variant_id, path))


def live_workers(session: Session, patience: float) -> int:
    """Workers that were seen within `patience` seconds."""
    seen = select(func.count()).select_from(Worker).where(Worker.seen_at > database_now() - patience)
    return session.scalar(seen) or 0


def note_stop(session: Session, worker: str) -> None:
    """It was shut down, and is not missed."""
    session.execute(update(Worker).where(Worker.id == worker).values(stopped_at=database_now()))


def all_workers(session: Session) -> list[Worker]:
    """Of those that are not forgotten yet, the ones seen last at first."""
    return list(session.scalars(select(Worker).order_by(Worker.seen_at.desc(), Worker.id)))


def latest_worker(session: Session) -> Worker | None:
    """The worker seen last; None if none ever came."""
    return session.scalar(select(Worker).order_by(Worker.seen_at.desc()).limit(1))


def count_by_state(session: Session) -> dict[JobState, int]:
    """How many jobs of all tenants are in each state; for Prometheus."""
    rows = session.execute(select(Job.state, func.count()).group_by(Job.state))
    counted = dict(rows.all())
    return {state: counted.get(state, 0) for state in JobState}

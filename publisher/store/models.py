"""Tables. Times are UTC in seconds since 1970, taken from the database's clock where they decide anything."""

from __future__ import annotations

import secrets
import time
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from publisher.recipe.versions import CURRENT as RECIPE_VERSION
from publisher.store.states import JobState


def new_id(prefix: str) -> str:
    """`job_0192f3a1c2b4d5e6f7a8b9`: 12 hex digits of milliseconds, then randomness, so that ids sort by age."""
    return f"{prefix}_{int(time.time() * 1000):012x}{secrets.token_hex(5)}"


#: The state's own word in a plain column, so that a new state needs no change of a database type.
STATE = Enum(JobState, native_enum=False, length=16, values_callable=lambda states: [state.value for state in states])


#: Every constraint has a name, so that a later migration can change it on SQLite, too.
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Table(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {
        dict[str, Any]: JSON(none_as_null=True),
        str: String(),
        float: Float(),
        int: BigInteger(),
        bool: Boolean(),
    }


def _list_index() -> Index:
    """A tenant's rows by age: a page of a list is read from where it begins, however long the list is."""
    return Index(None, "tenant_id", "id")


class Tenant(Table):
    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("ten"))
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[float] = mapped_column(default=time.time)


class ApiKey(Table):
    """The key itself is shown once; `digest` is its sha256, `prefix` its first characters, to tell keys apart.

    `created_by`: id of the key that asked for it; null: the service's operator made it.
    """

    __tablename__ = "api_keys"
    __table_args__ = (_list_index(),)
    id_kind: ClassVar[str] = "key"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(ApiKey.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    prefix: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[float] = mapped_column(default=time.time)
    revoked_at: Mapped[float | None]
    created_by: Mapped[str | None]


class BaseModel(Table):
    """`facts` is publisher.base_model.facts.BaseModelFacts as JSON."""

    __tablename__ = "base_models"
    __table_args__ = (_list_index(),)
    id_kind: ClassVar[str] = "base"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(BaseModel.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    repo_id: Mapped[str]
    revision: Mapped[str]
    path: Mapped[str | None]
    facts: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(default=time.time)


class Corpus(Table):
    """`source` is publisher.corpus.source.CorpusSource as JSON, `facts` what was counted at registration."""

    __tablename__ = "corpora"
    id_kind: ClassVar[str] = "corpus"
    __table_args__ = (UniqueConstraint("tenant_id", "name"), _list_index())

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(Corpus.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    source: Mapped[dict[str, Any]]
    facts: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(default=time.time)


class Variant(Table):
    """`publication` is publisher.manifest.reports.Publication as JSON and `manifest` the checkpoint's loram.json, once
    published. `recipe` is as it was asked for, of version `recipe_version`: read it by variant_content."""

    __tablename__ = "variants"
    id_kind: ClassVar[str] = "var"
    __table_args__ = (UniqueConstraint("tenant_id", "idempotency_key"), _list_index())

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(Variant.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    base_model_id: Mapped[str] = mapped_column(ForeignKey("base_models.id"), index=True)
    recipe: Mapped[dict[str, Any]]
    recipe_version: Mapped[int] = mapped_column(Integer, default=RECIPE_VERSION)
    recipe_digest: Mapped[str]
    publish_repo_id: Mapped[str]
    publish_private: Mapped[bool]
    idempotency_key: Mapped[str | None]
    request_digest: Mapped[str]
    publication: Mapped[dict[str, Any] | None]
    manifest: Mapped[dict[str, Any] | None]
    created_at: Mapped[float] = mapped_column(default=time.time)

    base_model: Mapped[BaseModel] = relationship()
    jobs: Mapped[list[Job]] = relationship(back_populates="variant", order_by="Job.id")
    files: Mapped[list[VariantFile]] = relationship(order_by="VariantFile.path")


class VariantFile(Table):
    """`size` in bytes."""

    __tablename__ = "variant_files"

    variant_id: Mapped[str] = mapped_column(ForeignKey("variants.id"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int]
    sha256: Mapped[str]


class Job(Table):
    """One run that makes a variant. `lease_token` grows with every claim; a write that names an older one is refused.

    `failure` is {blame: "request" | "infrastructure", stage, message, way_out}. `event_seq` is the number of the
    last event. `claimable_at` puts off a retry. `stages` maps a stage to its state and seconds, for display.
    `waiting` is publisher.jobs.waiting.Waiting while a queued job waits for something; `waiting_since` outlives claims,
    so that patience is counted from the first time that it had to, until a stage is finished.
    """

    __tablename__ = "jobs"
    id_kind: ClassVar[str] = "job"
    __table_args__ = (Index("ix_jobs_state", "state", "lease_expires_at"), _list_index())

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(Job.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    variant_id: Mapped[str] = mapped_column(ForeignKey("variants.id"), index=True)
    state: Mapped[JobState] = mapped_column(STATE, default=JobState.QUEUED)
    stage: Mapped[str | None]
    stages: Mapped[dict[str, Any]] = mapped_column(default=dict)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    lease_token: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[float | None]
    worker: Mapped[str | None]
    dispatched_at: Mapped[float | None]
    claimable_at: Mapped[float] = mapped_column(default=0.0)
    cancel_requested_at: Mapped[float | None]
    event_seq: Mapped[int] = mapped_column(default=0)
    failure: Mapped[dict[str, Any] | None]
    waiting: Mapped[dict[str, Any] | None]
    waiting_since: Mapped[float | None]
    created_at: Mapped[float] = mapped_column(default=time.time)
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]

    variant: Mapped[Variant] = relationship(back_populates="jobs")


class JobEvent(Table):
    """`seq` counts from 1 within a job without gaps: the SSE event id. `kind`: publisher.store.states.EventKind."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    at: Mapped[float]
    data: Mapped[dict[str, Any]]


class Worker(Table):
    """What a worker process measured of itself when it started; plans take their speed from it."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(Text)
    flops_per_second: Mapped[float]
    fp32_flops_per_second: Mapped[float]
    memory_bytes: Mapped[int]
    seen_at: Mapped[float]

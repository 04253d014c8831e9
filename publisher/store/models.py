"""Tables. Times are UTC in seconds since 1970, taken from the database's clock where they decide anything."""

from __future__ import annotations

import secrets
import time
from typing import Any

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


class Tenant(Table):
    """`event_seq` is the number of the last event of all its jobs: it grows in the order of commits, without gaps."""

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("ten"))
    name: Mapped[str] = mapped_column(unique=True)
    event_seq: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float] = mapped_column(default=time.time)


class ApiKey(Table):
    """The key itself is shown once; `digest` is its sha256, `prefix` its first characters, to tell keys apart."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("key"))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    prefix: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[float] = mapped_column(default=time.time)
    revoked_at: Mapped[float | None]


class EndedSession(Table):
    """A session of the dashboard that was signed out of: the sha256 of its cookie, kept until that is over anyway."""

    __tablename__ = "ended_sessions"

    id: Mapped[str] = mapped_column(primary_key=True)
    expires_at: Mapped[float]


class BaseModel(Table):
    """`facts` is publisher.base_model.facts.BaseModelFacts as JSON."""

    __tablename__ = "base_models"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("base"))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    repo_id: Mapped[str]
    revision: Mapped[str]
    path: Mapped[str | None]
    facts: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(default=time.time)


class Corpus(Table):
    """`source` is publisher.corpus.source.CorpusSource as JSON, `facts` what was counted at registration."""

    __tablename__ = "corpora"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("corpus"))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    source: Mapped[dict[str, Any]]
    facts: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(default=time.time)


class Variant(Table):
    """`publication` is publisher.manifest.reports.Publication as JSON and `manifest` the checkpoint's loram.json, once
    published. `recipe` is as it was asked for, of version `recipe_version`: read it by variant_content."""

    __tablename__ = "variants"
    __table_args__ = (UniqueConstraint("tenant_id", "idempotency_key"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("var"))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
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
    __table_args__ = (Index("ix_jobs_state", "state", "lease_expires_at"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("job"))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
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
    """`seq` counts from 1 within a job without gaps: the SSE event id. `kind`: publisher.store.states.EventKind.

    `number` counts the same way within the tenant (publisher.jobs.numbering); both are null in older events.
    """

    __tablename__ = "job_events"
    __table_args__ = (Index("ix_job_events_tenant_id_number", "tenant_id", "number", unique=True),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str | None]
    number: Mapped[int | None]
    kind: Mapped[str] = mapped_column(String(16))
    at: Mapped[float]
    data: Mapped[dict[str, Any]]


class MetricPoint(Table):
    """The last report of a step: `value` is null where it was not a number, `seq` the number of the event.

    `level` is the largest k for which the point is the lowest or the highest of its 4**k steps
    (publisher.store.metric_levels): a long series is read by a high level, and no spike is missing.
    """

    __tablename__ = "metric_points"
    __table_args__ = (Index("ix_metric_points_level", "job_id", "name", "level", "step"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    level: Mapped[int] = mapped_column(Integer)
    value: Mapped[float | None]
    at: Mapped[float]
    seq: Mapped[int]


class Worker(Table):
    """What a worker process measured of itself when it started; plans take their speed from it."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(Text)
    flops_per_second: Mapped[float]
    fp32_flops_per_second: Mapped[float]
    memory_bytes: Mapped[int]
    seen_at: Mapped[float]

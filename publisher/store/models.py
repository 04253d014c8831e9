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
    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("ten"))
    name: Mapped[str] = mapped_column(unique=True)
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
    `needs` is publisher.plan.needs.Needs, the same for all jobs of one `needs_digest`; `queue` is one of
    publisher.plan.queues; jobs of one `likeness` take equally long. Lower `precedence` comes first, then the oldest.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_state", "state", "lease_expires_at"),
        Index("ix_jobs_turn", "state", "precedence", "id"),
    )

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
    precedence: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    needs: Mapped[dict[str, Any] | None]
    needs_digest: Mapped[str | None]
    queue: Mapped[str | None]
    likeness: Mapped[str | None] = mapped_column(index=True)
    created_at: Mapped[float] = mapped_column(default=time.time)
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]

    variant: Mapped[Variant] = relationship(back_populates="jobs")

    @property
    def priority(self) -> int:
        """As people give it, the higher the sooner; an index that rises alone is the same on every database."""
        return -self.precedence


class JobEvent(Table):
    """`seq` counts from 1 within a job without gaps: the SSE event id. `kind`: publisher.store.states.EventKind."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    at: Mapped[float]
    data: Mapped[dict[str, Any]]


class Worker(Table):
    """What a worker process measured of itself when it started, from which plans take their speed, and what it holds:
    `memory_bytes` of each of `devices` that align together, `free_disk_bytes` for its stages as of `seen_at`. `kind` is
    a publisher.plan.align.Machine; None: written by a version that did not tell. `queues`: those whose jobs it may
    take; None: it knows of the one alone that there was before.
    """

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(Text)
    flops_per_second: Mapped[float]
    fp32_flops_per_second: Mapped[float]
    memory_bytes: Mapped[int]
    seen_at: Mapped[float]
    kind: Mapped[str | None]
    devices: Mapped[int] = mapped_column(Integer, default=1, server_default="1")
    free_disk_bytes: Mapped[int | None]
    host: Mapped[str | None]
    started_at: Mapped[float | None]
    queues: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))

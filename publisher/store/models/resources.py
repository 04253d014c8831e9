"""What tenants make: base models, corpora, sweeps, variants, and the jobs that make these."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from sqlalchemy import ForeignKey, Index, Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from publisher.recipe.versions import CURRENT as RECIPE_VERSION
from publisher.store.models.table import STATE, Table, list_index, new_id
from publisher.store.states import JobState


class BaseModel(Table):
    """`facts` is publisher.base_model.facts.BaseModelFacts as JSON; `labels` are written by publisher.store.labels."""

    __tablename__ = "base_models"
    __table_args__ = (list_index(),)
    id_kind: ClassVar[str] = "base"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(BaseModel.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    repo_id: Mapped[str]
    revision: Mapped[str]
    path: Mapped[str | None]
    facts: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[float] = mapped_column(default=time.time)


class Corpus(Table):
    """`source` is publisher.corpus.source.CorpusSource as JSON, `facts` what was counted at registration."""

    __tablename__ = "corpora"
    id_kind: ClassVar[str] = "corpus"
    __table_args__ = (UniqueConstraint("tenant_id", "name"), list_index())

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(Corpus.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    source: Mapped[dict[str, Any]]
    facts: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[float] = mapped_column(default=time.time)


class Label(Table):
    """One label of a base model, a corpus or a variant, to find it by; what it shows are its own `labels`."""

    __tablename__ = "labels"
    __table_args__ = (Index("ix_labels_key", "key", "value", "resource_id"),)

    resource_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class Sweep(Table):
    """Variants that were asked for together. `request` is publisher.api.sweeps_schema.SweepRequest as JSON."""

    __tablename__ = "sweeps"
    id_kind: ClassVar[str] = "sweep"
    __table_args__ = (UniqueConstraint("tenant_id", "idempotency_key"), list_index())

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(Sweep.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    request: Mapped[dict[str, Any]]
    idempotency_key: Mapped[str | None]
    request_digest: Mapped[str]
    created_at: Mapped[float] = mapped_column(default=time.time)

    variants: Mapped[list[Variant]] = relationship(order_by="Variant.id")


class Variant(Table):
    """`publication` is publisher.manifest.reports.Publication as JSON and `manifest` the checkpoint's loram.json, once
    published. `recipe` is as it was asked for, of version `recipe_version`: read it by variant_content.
    `reduction` (how many times fewer parameters) and `verdict` (publisher.manifest.verdict) repeat the manifest, for
    lists to sort by.
    """

    __tablename__ = "variants"
    id_kind: ClassVar[str] = "var"
    __table_args__ = (
        UniqueConstraint("tenant_id", "idempotency_key"),
        # each gives a page of a long list in the order of ids, without sorting all rows
        list_index(),
        Index("ix_variants_repo", "tenant_id", "publish_repo_id", "id"),
        Index("ix_variants_base", "tenant_id", "base_model_id", "id"),
        # all that sorting asks for: rows are not read, whose manifests are large
        Index("ix_variants_reduction", "tenant_id", "reduction", "id"),
        Index("ix_variants_verdict", "tenant_id", "verdict", "id"),
    )

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
    reduction: Mapped[float | None]
    verdict: Mapped[str | None]
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    sweep_id: Mapped[str | None] = mapped_column(ForeignKey("sweeps.id"), index=True)
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
    last event. `claimable_at` puts off a retry. `stages` maps a stage to its state, seconds and memory.
    `waiting` is publisher.jobs.waiting.Waiting while a queued job waits for something; `waiting_since` outlives claims,
    so that patience is counted from the first time that it had to, until a stage is finished.
    `publishing` is publisher.jobs.publishing.Intent from just before a commit is sent until its outcome is known.
    `needs` is publisher.plan.needs.Needs, the same for all jobs of one `needs_digest`; `queue` is one of
    publisher.plan.queues; jobs of one `likeness` take equally long. Lower `precedence` comes first, then the oldest.
    `queued_at` is when it last began to be queued, `waiting_kind` that of `waiting`, both for monitoring alone; null: a
    version that did not tell wrote it. `traceparent` (W3C) names the span of the request that it goes back to.
    """

    __tablename__ = "jobs"
    id_kind: ClassVar[str] = "job"
    __table_args__ = (
        Index("ix_jobs_state", "state", "lease_expires_at"),
        Index("ix_jobs_turn", "state", "precedence", "id"),
        list_index(),
        Index("ix_jobs_tenant_state", "tenant_id", "state", "id"),
        # all that publisher.jobs.census asks of jobs: 100,000 queued ones are counted without reading their rows
        Index("ix_jobs_census", "state", "queue", "waiting_kind", "claimable_at", "queued_at"),
    )

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
    pause_requested_at: Mapped[float | None]
    event_seq: Mapped[int] = mapped_column(default=0)
    failure: Mapped[dict[str, Any] | None]
    waiting: Mapped[dict[str, Any] | None]
    waiting_since: Mapped[float | None]
    publishing: Mapped[dict[str, Any] | None]
    precedence: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    needs: Mapped[dict[str, Any] | None]
    needs_digest: Mapped[str | None]
    queue: Mapped[str | None]
    likeness: Mapped[str | None] = mapped_column(index=True)
    queued_at: Mapped[float | None] = mapped_column(default=time.time)
    waiting_kind: Mapped[str | None]
    traceparent: Mapped[str | None]
    created_at: Mapped[float] = mapped_column(default=time.time)
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]

    variant: Mapped[Variant] = relationship(back_populates="jobs")

    @property
    def priority(self) -> int:
        """As people give it, the higher the sooner; an index that rises alone is the same on every database."""
        return -self.precedence

    @property
    def labels(self) -> dict[str, Any]:
        """Its variant's."""
        return self.variant.labels


class JobAttempt(Table):
    """A job in the hands of one worker, from its claim to the end of its lease; kept over retries.

    `number` is the lease's token, `attempt` the try that it was counted as. `outcome` is
    publisher.store.states.AttemptOutcome, `failure`, `waiting` and `stages` are as in the job's row when it ended;
    `first_event` and `last_event` bound its events.
    """

    __tablename__ = "job_attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    worker: Mapped[str]
    started_at: Mapped[float]
    finished_at: Mapped[float | None]
    outcome: Mapped[str | None]
    failure: Mapped[dict[str, Any] | None]
    waiting: Mapped[dict[str, Any] | None]
    stages: Mapped[dict[str, Any]] = mapped_column(default=dict)
    first_event: Mapped[int]
    last_event: Mapped[int | None]

"""Tables. Times are UTC in seconds since 1970, taken from the database's clock where they decide anything."""

from __future__ import annotations

import secrets
import time
from enum import StrEnum
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
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from publisher.keys.scopes import Scope, rights
from publisher.recipe.versions import CURRENT as RECIPE_VERSION
from publisher.store.states import DeliveryState, JobState


def new_id(prefix: str) -> str:
    """`job_0192f3a1c2b4d5e6f7a8b9`: 12 hex digits of milliseconds, then randomness, so that ids sort by age."""
    return f"{prefix}_{int(time.time() * 1000):012x}{secrets.token_hex(5)}"


#: The state's own word in a plain column, so that a new state needs no change of a database type.
def _words(states: type[StrEnum]) -> Enum:
    return Enum(states, native_enum=False, length=16, values_callable=lambda kind: [state.value for state in kind])


STATE = _words(JobState)
DELIVERY_STATE = _words(DeliveryState)


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
    """`event_seq` is the number of the last event of all its jobs: it grows in the order of commits, without gaps.

    `suspended_at`: since then nobody acts for it (publisher.store.tenants). `local_roots`: folders from which it alone
    may register by path; null: those of the settings.
    `webhooks`: how many it has. Who numbers events reads it with the number: without a webhook nothing more is done.
    """

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("ten"))
    name: Mapped[str] = mapped_column(unique=True)
    event_seq: Mapped[int] = mapped_column(default=0)
    suspended_at: Mapped[float | None]
    local_roots: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    webhooks: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    created_at: Mapped[float] = mapped_column(default=time.time)


class HubNamespace(Table):
    """Whose a namespace of the embedded Hub is; null: taken back, nobody's until it is granted again."""

    __tablename__ = "hub_namespaces"

    namespace: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str | None] = mapped_column(ForeignKey("tenants.id"), index=True)
    granted_at: Mapped[float] = mapped_column(default=time.time)


class ApiKey(Table):
    """The key itself is shown once; `prefix` are its first characters, to tell keys apart.

    `digest` and `secret_id` are a publisher.keys.digests.Digest. `created_by`: id of the key that asked for it; null:
    the service's operator made it. `scopes`: of publisher.keys.scopes; null: all, as before there were scopes.
    `last_used_at` is a minute old at most while the key is in use.
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
    scopes: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    expires_at: Mapped[float | None]
    last_used_at: Mapped[float | None]
    secret_id: Mapped[str | None]

    @property
    def rights(self) -> frozenset[Scope]:
        """What it may do, with what its scopes include."""
        return rights(self.scopes)


class Person(Table):
    """Somebody who signed in by OpenID Connect: `issuer` and `subject` are who, the rest is what was said last.

    `email` is null unless the provider has verified it.
    """

    __tablename__ = "people"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("per"))
    issuer: Mapped[str]
    subject: Mapped[str]
    email: Mapped[str | None] = mapped_column(index=True)
    name: Mapped[str]
    created_at: Mapped[float] = mapped_column(default=time.time)
    signed_in_at: Mapped[float] = mapped_column(default=time.time)


class Membership(Table):
    """A person's place in a tenant: what a session of the dashboard stands on where it does not stand on a key.

    `email`: whom the operator invited, lower-case; null: a rule of the settings made it. `person_id` is null until the
    invited one signs in. `role` is one of publisher.people.roles; `ended_at`: the operator took it away.
    """

    __tablename__ = "memberships"
    __table_args__ = (UniqueConstraint("tenant_id", "person_id"), UniqueConstraint("tenant_id", "email"))

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("mem"))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    person_id: Mapped[str | None] = mapped_column(ForeignKey("people.id"), index=True)
    email: Mapped[str | None] = mapped_column(index=True)
    role: Mapped[str]
    created_at: Mapped[float] = mapped_column(default=time.time)
    used_at: Mapped[float | None]
    ended_at: Mapped[float | None]

    tenant: Mapped[Tenant] = relationship()
    person: Mapped[Person | None] = relationship()


class HubCredential(Table):
    """Where a tenant's variants are published. Tokens are sealed (publisher.store.hub_credentials); `…_end` are their
    last letters. `set_by`: id of the key that sent them. `read_token`: for gated base models."""

    __tablename__ = "hub_credentials"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    endpoint: Mapped[str]
    write_token: Mapped[str]
    write_token_end: Mapped[str]
    read_token: Mapped[str | None]
    read_token_end: Mapped[str | None]
    set_by: Mapped[str]
    set_at: Mapped[float]
    used_at: Mapped[float | None]


class EndedSession(Table):
    """A session of the dashboard that was signed out of: the sha256 of its cookie, kept until that is over anyway."""

    __tablename__ = "ended_sessions"

    id: Mapped[str] = mapped_column(primary_key=True)
    expires_at: Mapped[float]


class BaseModel(Table):
    """`facts` is publisher.base_model.facts.BaseModelFacts as JSON; `labels` are written by publisher.store.labels."""

    __tablename__ = "base_models"
    __table_args__ = (_list_index(),)
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
    __table_args__ = (UniqueConstraint("tenant_id", "name"), _list_index())

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
    __table_args__ = (UniqueConstraint("tenant_id", "idempotency_key"), _list_index())

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(Sweep.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    request: Mapped[dict[str, Any]]
    idempotency_key: Mapped[str | None]
    request_digest: Mapped[str]
    created_at: Mapped[float] = mapped_column(default=time.time)

    variants: Mapped[list[Variant]] = relationship(order_by="Variant.id")


class Variant(Table):
    """`publication` is publisher.manifest.reports.Publication as JSON and `manifest` the checkpoint's loram.json, once
    published. `recipe` is as it was asked for, of version `recipe_version`: read it by variant_content."""

    __tablename__ = "variants"
    id_kind: ClassVar[str] = "var"
    __table_args__ = (
        UniqueConstraint("tenant_id", "idempotency_key"),
        # each gives a page of a long list in the order of ids, without sorting all rows
        _list_index(),
        Index("ix_variants_repo", "tenant_id", "publish_repo_id", "id"),
        Index("ix_variants_base", "tenant_id", "base_model_id", "id"),
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
    last event. `claimable_at` puts off a retry. `stages` maps a stage to its state and seconds, for display.
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
        _list_index(),
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


_IS_LOG = text("kind = 'log'")


class JobEvent(Table):
    """`seq` counts from 1 within a job without gaps: the SSE event id. `kind`: publisher.store.states.EventKind.

    `number` counts the same way within the tenant (publisher.jobs.numbering); both are null in older events.
    """

    __tablename__ = "job_events"
    __table_args__ = (
        # a job of 80,000 metrics has some dozen lines of log
        Index("ix_job_events_log", "job_id", "seq", sqlite_where=_IS_LOG, postgresql_where=_IS_LOG),
        Index("ix_job_events_tenant_id_number", "tenant_id", "number", unique=True),
    )

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


class AuditEntry(Table):
    """Who did what to which thing; written by publisher.store.audit in the transaction of the change, never changed.

    `actor`: a publisher.store.origin.SubjectKind. `resource` is what was changed, `related` what it belongs to or made,
    by their ids; neither is a reference, since rows outlive what they tell of. `tenant_id`: None for what the operator
    did to no tenant.
    """

    __tablename__ = "audit_log"
    __table_args__ = (
        _list_index(),
        Index("ix_audit_log_resource", "resource", "id"),
        Index("ix_audit_log_related", "related", "id"),
    )
    id_kind: ClassVar[str] = "audit"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(AuditEntry.id_kind))
    tenant_id: Mapped[str | None]
    at: Mapped[float] = mapped_column(default=time.time)
    actor: Mapped[str]
    actor_id: Mapped[str | None]
    key_id: Mapped[str | None]
    request_id: Mapped[str | None]
    address: Mapped[str | None]
    action: Mapped[str]
    resource: Mapped[str]
    related: Mapped[str | None]
    details: Mapped[dict[str, Any]]


class StoredObject(Table):
    """A content that a repository of the embedded Hub holds; `size` in bytes. `repository` is namespace/name."""

    __tablename__ = "hub_objects"
    __table_args__ = (Index("ix_hub_objects_tenant", "tenant_id", "sha256", "size"),)

    repository: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    size: Mapped[int]
    at: Mapped[float] = mapped_column(default=time.time)


class QuotaLimit(Table):
    """The most that a tenant may have of something (publisher.store.quotas); null: without limit. Of the tenant `*`:
    what those may have who have no row of their own."""

    __tablename__ = "quota_limits"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    most: Mapped[int | None]


class Worker(Table):
    """What a worker process measured of itself when it started, from which plans take their speed, and what it holds:
    `memory_bytes` of each of `devices` that align together, `free_disk_bytes` for its stages as of `seen_at`. `kind` is
    a publisher.plan.align.Machine; None: written by a version that did not tell. `queues`: those whose jobs it may
    take; None: it knows of the one alone that there was before. `stopped_at`: when it was shut down, if it was.
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
    stopped_at: Mapped[float | None]


class ServiceProcess(Table):
    """An API process that is there now (publisher.store.presence).

    `secrets`: fingerprints of those that it accepts, with a space between, first of the one that it signs with; `hub`
    and `broker`: `local` where these lie in its own data folder, else where they are, without passwords.
    """

    __tablename__ = "service_processes"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    version: Mapped[str]
    secrets: Mapped[str]
    hub: Mapped[str]
    broker: Mapped[str]
    started_at: Mapped[float]
    seen_at: Mapped[float]


class Webhook(Table):
    """Where a tenant's events are sent. `events`: names of publisher.webhooks.register; null: all, those to come too.

    `secret` signs, sealed by publisher.signing.sealing, and `previous_secret` besides until `previous_until`.
    `failing_since`: nothing has been delivered since then, though it was tried. One that is disabled says why.
    """

    __tablename__ = "webhooks"
    __table_args__ = (_list_index(),)
    id_kind: ClassVar[str] = "hook"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(Webhook.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    url: Mapped[str] = mapped_column(Text)
    description: Mapped[str]
    events: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    secret: Mapped[str]
    previous_secret: Mapped[str | None]
    previous_until: Mapped[float | None]
    failing_since: Mapped[float | None]
    disabled_at: Mapped[float | None]
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(default=time.time)


class WebhookEvent(Table):
    """What happened, as it is sent: its id is the message's. `type`: a name of publisher.webhooks.register."""

    __tablename__ = "webhook_events"
    __table_args__ = (_list_index(),)
    id_kind: ClassVar[str] = "evt"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(WebhookEvent.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    type: Mapped[str] = mapped_column(String(64))
    at: Mapped[float]
    data: Mapped[dict[str, Any]]


_IS_PENDING = text("state = 'pending'")


class WebhookDelivery(Table):
    """One event on its way to one webhook. `state`: publisher.store.states.DeliveryState.

    `due_at`: it is not tried before; who takes it moves that beyond the try's end, so that it is due again should its
    taker die. `attempts` grows with every claim, and what ends a try names it. `asked_at`: when it was made, or asked
    for again; patience is counted from there. The rest is of the last try: `status` of the answer, `error` why it
    failed, `seconds` that it took.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_list", "webhook_id", "id"),
        Index(
            "ix_webhook_deliveries_due",
            "webhook_id",
            "due_at",
            sqlite_where=_IS_PENDING,
            postgresql_where=_IS_PENDING,
        ),
    )
    id_kind: ClassVar[str] = "dlv"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(WebhookDelivery.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id"))
    event_id: Mapped[str] = mapped_column(ForeignKey("webhook_events.id"), index=True)
    state: Mapped[DeliveryState] = mapped_column(DELIVERY_STATE, default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    due_at: Mapped[float]
    asked_at: Mapped[float]
    tried_at: Mapped[float | None]
    delivered_at: Mapped[float | None]
    status: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(Text)
    seconds: Mapped[float | None]
    created_at: Mapped[float]

    event: Mapped[WebhookEvent] = relationship()


class Tally(Table):
    """A part of a series of publisher.store.tallies: `count` observations of sum `total`, none of them above `bucket`
    (null: there is no bound). Parts of one series add up; no row is ever changed, so nobody waits for another."""

    __tablename__ = "tallies"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("tally"))
    name: Mapped[str]
    labels: Mapped[str]
    bucket: Mapped[float | None]
    count: Mapped[int]
    total: Mapped[float]

"""What is told of jobs and of what people did."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from sqlalchemy import ForeignKey, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from publisher.store.models.table import Table, list_index, new_id

_IS_LOG = text("kind = 'log'")
_IS_STEP = text("kind IN ('state', 'stage')")


class JobEvent(Table):
    """`seq` counts from 1 within a job without gaps: the SSE event id. `kind`: publisher.store.states.EventKind.

    `number` counts the same way within the tenant (publisher.jobs.numbering); both are null in older events.
    """

    __tablename__ = "job_events"
    __table_args__ = (
        # a job of 80,000 metrics has some dozen lines of log, and as many changes of its state and stages
        Index("ix_job_events_log", "job_id", "seq", sqlite_where=_IS_LOG, postgresql_where=_IS_LOG),
        Index("ix_job_events_steps", "job_id", "seq", sqlite_where=_IS_STEP, postgresql_where=_IS_STEP),
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
        list_index(),
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

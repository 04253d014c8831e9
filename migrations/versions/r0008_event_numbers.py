"""Events are numbered within their tenant; what they measured is kept as points; sessions can be ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

EVENTS = sa.table(
    "job_events",
    sa.column("job_id", sa.String),
    sa.column("seq", sa.BigInteger),
    sa.column("kind", sa.String),
    sa.column("at", sa.Float),
    sa.column("data", sa.JSON),
)
POINTS = sa.table(
    "metric_points",
    sa.column("job_id", sa.String),
    sa.column("name", sa.String),
    sa.column("step", sa.BigInteger),
    sa.column("level", sa.Integer),
    sa.column("value", sa.Float),
    sa.column("at", sa.Float),
    sa.column("seq", sa.BigInteger),
)
#: as publisher.store.metric_levels had them at this revision
FAN, TOP = 4, 10
_BATCH = 5000


class Point(NamedTuple):
    value: float | None
    at: float
    seq: int


Series = dict[str, dict[int, Point]]


def upgrade() -> None:
    # plain columns, not by a copy of the table: an old installation has millions of events
    op.add_column("tenants", sa.Column("event_seq", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("job_events", sa.Column("tenant_id", sa.String(), nullable=True))
    op.add_column("job_events", sa.Column("number", sa.BigInteger(), nullable=True))
    op.create_index("ix_job_events_tenant_id_number", "job_events", ["tenant_id", "number"], unique=True)
    _create_points()
    op.create_table(
        "ended_sessions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ended_sessions"),
    )
    connection = op.get_bind()
    for (job_id,) in connection.execute(sa.text("SELECT id FROM jobs ORDER BY id")).all():
        _fill(connection, job_id)
    op.create_index("ix_metric_points_level", "metric_points", ["job_id", "name", "level", "step"])


def downgrade() -> None:
    op.drop_table("ended_sessions")
    op.drop_table("metric_points")
    op.drop_index("ix_job_events_tenant_id_number", "job_events")
    op.drop_column("job_events", "number")
    op.drop_column("job_events", "tenant_id")
    op.drop_column("tenants", "event_seq")


def _create_points() -> None:
    op.create_table(
        "metric_points",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "name", "step", name="pk_metric_points"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_metric_points_job_id", ondelete="CASCADE"),
    )


def _fill(connection: sa.Connection, job_id: str) -> None:
    rows = []
    for name, points in _series(connection, job_id).items():
        levels = _levels(points)
        for step, point in points.items():
            row = {"job_id": job_id, "name": name, "step": step, "level": levels[step]}
            rows.append(row | point._asdict())
    for start in range(0, len(rows), _BATCH):
        connection.execute(sa.insert(POINTS), rows[start : start + _BATCH])


def _series(connection: sa.Connection, job_id: str) -> Series:
    """Name → step → its last report."""
    series: Series = {}
    for seq, at, data in _metric_events(connection, job_id):
        series.setdefault(data["name"], {})[data["step"]] = Point(data["value"], at, seq)
    return series


def _metric_events(connection: sa.Connection, job_id: str) -> Iterator[sa.Row[tuple[int, float, dict[str, object]]]]:
    mine = sa.select(EVENTS.c.seq, EVENTS.c.at, EVENTS.c.data).where(EVENTS.c.job_id == job_id)
    last = 0
    while rows := connection.execute(
        mine.where(EVENTS.c.kind == "metric", EVENTS.c.seq > last).order_by(EVENTS.c.seq).limit(_BATCH)
    ).all():
        yield from rows
        last = rows[-1].seq


def _levels(points: dict[int, Point]) -> dict[int, int]:
    """Step → the largest k for which its point is the lowest or the highest of its 4**k steps."""
    levels = dict.fromkeys(points, 0)
    reached = sorted(points)
    for level in range(1, TOP + 1):
        buckets: dict[int, list[int]] = {}
        for step in reached:
            buckets.setdefault(step // FAN**level, []).append(step)
        reached = sorted({step for steps in buckets.values() for step in _extremes(steps, points)})
        levels |= dict.fromkeys(reached, level)
    return levels


def _extremes(steps: list[int], points: dict[int, Point]) -> set[int]:
    """What is no number counts only where nothing else is."""
    numbers = [(points[step].value, step) for step in steps if points[step].value is not None]
    return {min(numbers)[1], max(numbers)[1]} if numbers else {steps[0]}

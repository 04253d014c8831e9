"""What is watched: since when a job is queued and which trace it belongs to, workers that stopped in order, tallies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # a process of the version before writes rows without these meanwhile
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("queued_at", sa.Float(), nullable=True))
        jobs.add_column(sa.Column("waiting_kind", sa.String(), nullable=True))
        jobs.add_column(sa.Column("traceparent", sa.String(), nullable=True))
        jobs.create_index("ix_jobs_census", ["state", "queue", "waiting_kind", "claimable_at", "queued_at"])
    _fill()
    with op.batch_alter_table("workers") as workers:
        workers.add_column(sa.Column("stopped_at", sa.Float(), nullable=True))
    op.create_table(
        "tallies",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("labels", sa.String(), nullable=False),
        sa.Column("bucket", sa.Float(), nullable=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tallies"),
    )


def _fill() -> None:
    """What the jobs that are queued now wait for, and since when."""
    jobs = sa.table(
        "jobs",
        *(sa.column("state", sa.String()), sa.column("queued_at", sa.Float()), sa.column("created_at", sa.Float())),
        *(sa.column("waiting", sa.JSON()), sa.column("waiting_kind", sa.String())),
    )
    kind = jobs.c.waiting["kind"].as_string()
    op.execute(jobs.update().where(jobs.c.state == "queued").values(queued_at=jobs.c.created_at, waiting_kind=kind))


def downgrade() -> None:
    op.drop_table("tallies")
    with op.batch_alter_table("workers") as workers:
        workers.drop_column("stopped_at")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_index("ix_jobs_census")
        jobs.drop_column("traceparent")
        jobs.drop_column("waiting_kind")
        jobs.drop_column("queued_at")

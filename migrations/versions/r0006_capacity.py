"""Workers say what they hold, jobs what they need and how urgent they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # what a process of the version before writes during an upgrade lacks these: each is null or has a default
    with op.batch_alter_table("workers") as workers:
        workers.add_column(sa.Column("kind", sa.String(), nullable=True))
        workers.add_column(sa.Column("devices", sa.Integer(), nullable=False, server_default="1"))
        workers.add_column(sa.Column("free_disk_bytes", sa.BigInteger(), nullable=True))
        workers.add_column(sa.Column("host", sa.String(), nullable=True))
        workers.add_column(sa.Column("started_at", sa.Float(), nullable=True))
        workers.add_column(sa.Column("queues", sa.JSON(none_as_null=True), nullable=True))
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("precedence", sa.Integer(), nullable=False, server_default="0"))
        jobs.add_column(sa.Column("needs", sa.JSON(none_as_null=True), nullable=True))
        jobs.add_column(sa.Column("needs_digest", sa.String(), nullable=True))
        jobs.add_column(sa.Column("queue", sa.String(), nullable=True))
        jobs.add_column(sa.Column("likeness", sa.String(), nullable=True))
        jobs.create_index("ix_jobs_turn", ["state", "precedence", "id"])
        jobs.create_index("ix_jobs_likeness", ["likeness"])


def downgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_index("ix_jobs_likeness")
        jobs.drop_index("ix_jobs_turn")
        for column in ("likeness", "queue", "needs_digest", "needs", "precedence"):
            jobs.drop_column(column)
    with op.batch_alter_table("workers") as workers:
        for column in ("queues", "started_at", "host", "free_disk_bytes", "devices", "kind"):
            workers.drop_column(column)

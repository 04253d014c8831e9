"""Queued jobs say what they wait for, and since when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("waiting", sa.JSON(none_as_null=True), nullable=True))
        jobs.add_column(sa.Column("waiting_since", sa.Float(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("waiting_since")
        jobs.drop_column("waiting")

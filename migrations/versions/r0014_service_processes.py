"""Which API processes there are now: what they have to share is looked at when one more starts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "service_processes",
        *(
            sa.Column(name, sa.String(), nullable=False)
            for name in ("id", "host", "version", "secrets", "hub", "broker")
        ),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_service_processes"),
    )


def downgrade() -> None:
    op.drop_table("service_processes")

"""A tenant's Hub: its endpoint, and tokens that lie sealed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "hub_credentials",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("write_token", sa.String(), nullable=False),
        sa.Column("write_token_end", sa.String(), nullable=False),
        sa.Column("read_token", sa.String(), nullable=True),
        sa.Column("read_token_end", sa.String(), nullable=True),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.Column("set_at", sa.Float(), nullable=False),
        sa.Column("used_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_hub_credentials"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_hub_credentials_tenant_id"),
    )


def downgrade() -> None:
    op.drop_table("hub_credentials")

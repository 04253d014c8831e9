"""Workers measure their speed in fp32, too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("workers") as workers:
        workers.add_column(sa.Column("fp32_flops_per_second", sa.Float(), nullable=True))
    # right on a CPU; a GPU's worker measures it when it starts again
    op.execute("UPDATE workers SET fp32_flops_per_second = flops_per_second")
    with op.batch_alter_table("workers") as workers:
        workers.alter_column("fp32_flops_per_second", existing_type=sa.Float(), nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("workers") as workers:
        workers.drop_column("fp32_flops_per_second")

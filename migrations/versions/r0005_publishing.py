"""A job says that its commit is about to be sent, so that whoever comes next asks the Hub what became of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("publishing", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    # the version before knows of no cancel without a worker: as one whose worker is lost it ends
    jobs_of_now = sa.table("jobs", sa.column("state"), sa.column("lease_expires_at"))
    without_worker = (jobs_of_now.c.state == "cancelling", jobs_of_now.c.lease_expires_at.is_(None))
    op.execute(jobs_of_now.update().values(lease_expires_at=0.0).where(*without_worker))
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("publishing")

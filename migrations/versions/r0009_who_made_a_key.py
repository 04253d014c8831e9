"""Keys know which key made them: one may revoke those that it made, the tenant's first one all.

Of keys from before, the oldest that works of each tenant counts as its first, and as the maker of the others.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_KEYS = sa.table("api_keys", sa.column("id"), sa.column("tenant_id"), sa.column("revoked_at"), sa.column("created_by"))


def upgrade() -> None:
    with op.batch_alter_table("api_keys") as keys:
        keys.add_column(sa.Column("created_by", sa.String(), nullable=True))
    other = _KEYS.alias("other")  # ids sort by age
    first = (
        sa.select(sa.func.min(other.c.id))
        .where(other.c.tenant_id == _KEYS.c.tenant_id, other.c.revoked_at.is_(None))
        .scalar_subquery()
    )
    op.execute(_KEYS.update().where(_KEYS.c.id != first).values(created_by=first))


def downgrade() -> None:
    with op.batch_alter_table("api_keys") as keys:
        keys.drop_column("created_by")

"""Keys have scopes, an end, a last use and a keyed digest; tenants can be suspended and have folders of their own;
namespaces of the embedded Hub belong to a tenant by grant.

Keys of before keep all rights, and are known by the digests that they have. The grants of namespaces that have an
owner already lie in the Hub's folder: the service's next start takes them over.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("api_keys") as keys:
        keys.add_column(sa.Column("scopes", sa.JSON(none_as_null=True), nullable=True))
        keys.add_column(sa.Column("expires_at", sa.Float(), nullable=True))
        keys.add_column(sa.Column("last_used_at", sa.Float(), nullable=True))
        keys.add_column(sa.Column("secret_id", sa.String(), nullable=True))
    with op.batch_alter_table("tenants") as tenants:
        tenants.add_column(sa.Column("suspended_at", sa.Float(), nullable=True))
        tenants.add_column(sa.Column("local_roots", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "hub_namespaces",
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=True),
        sa.Column("granted_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_hub_namespaces_tenant_id"),
        sa.PrimaryKeyConstraint("namespace", name="pk_hub_namespaces"),
    )
    op.create_index("ix_hub_namespaces_tenant_id", "hub_namespaces", ["tenant_id"])


def downgrade() -> None:
    op.drop_table("hub_namespaces")
    with op.batch_alter_table("tenants") as tenants:
        tenants.drop_column("local_roots")
        tenants.drop_column("suspended_at")
    with op.batch_alter_table("api_keys") as keys:
        for column in ("secret_id", "last_used_at", "expires_at", "scopes"):
            keys.drop_column(column)

"""Attempts are kept, jobs pause, resources carry labels, sweeps hold variants together, logs have an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

LABELLED = ("base_models", "corpora", "variants")
#: a page of a long list comes in the order of ids, without sorting all rows
LISTS = (
    ("ix_jobs_tenant_id_id", "jobs", ["tenant_id", "id"]),
    ("ix_jobs_tenant_state", "jobs", ["tenant_id", "state", "id"]),
    ("ix_variants_tenant_id_id", "variants", ["tenant_id", "id"]),
    ("ix_variants_repo", "variants", ["tenant_id", "publish_repo_id", "id"]),
    ("ix_variants_base", "variants", ["tenant_id", "base_model_id", "id"]),
)
_IS_LOG = sa.text("kind = 'log'")


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("pause_requested_at", sa.Float(), nullable=True))
    _create_attempts()
    _create_labels()
    _create_sweeps()
    for name, table, columns in LISTS:
        op.create_index(name, table, columns)
    for table in ("jobs", "variants"):
        op.drop_index(f"ix_{table}_tenant_id", table)
    op.create_index(
        "ix_job_events_log", "job_events", ["job_id", "seq"], sqlite_where=_IS_LOG, postgresql_where=_IS_LOG
    )


def downgrade() -> None:
    op.drop_index("ix_job_events_log", "job_events")
    for table in ("jobs", "variants"):
        op.create_index(f"ix_{table}_tenant_id", table, ["tenant_id"])
    for name, table, _ in LISTS:
        op.drop_index(name, table)
    with op.batch_alter_table("variants") as variants:
        variants.drop_index("ix_variants_sweep_id")
        variants.drop_constraint("fk_variants_sweep_id", type_="foreignkey")
        variants.drop_column("sweep_id")
    op.drop_table("sweeps")
    for table in LABELLED:
        with op.batch_alter_table(table) as labelled:
            labelled.drop_column("labels")
    op.drop_table("labels")
    op.drop_table("job_attempts")
    _forget_pauses()
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("pause_requested_at")


def _forget_pauses() -> None:
    """The version before reads no row in a state that it does not know. What nobody wants to run is cancelled, which
    can be retried; what stops just now runs on."""
    jobs = sa.table("jobs", *(sa.column(name) for name in ("state", "finished_at", "pause_requested_at")))
    ended = jobs.update().values(state="cancelled", finished_at=jobs.c.pause_requested_at)
    op.execute(ended.where(jobs.c.state == "paused"))
    op.execute(jobs.update().values(state="running").where(jobs.c.state == "pausing"))


def _create_attempts() -> None:
    op.create_table(
        "job_attempts",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("failure", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("waiting", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("stages", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("first_event", sa.BigInteger(), nullable=False),
        sa.Column("last_event", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_attempts_job_id"),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_job_attempts"),
    )


def _create_labels() -> None:
    op.create_table(
        "labels",
        sa.Column("resource_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("resource_id", "key", name="pk_labels"),
    )
    op.create_index("ix_labels_key", "labels", ["key", "value", "resource_id"])
    for table in LABELLED:
        with op.batch_alter_table(table) as labelled:
            labelled.add_column(sa.Column("labels", sa.JSON(none_as_null=True), nullable=True))
        op.execute(sa.table(table, sa.column("labels", sa.JSON)).update().values(labels={}))
        with op.batch_alter_table(table) as labelled:
            labelled.alter_column("labels", existing_type=sa.JSON(none_as_null=True), nullable=False)


def _create_sweeps() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("request", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=True),
        sa.Column("request_digest", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sweeps"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_sweeps_tenant_id"),
        sa.UniqueConstraint("tenant_id", "idempotency_key", name="uq_sweeps_tenant_id_idempotency_key"),
    )
    op.create_index("ix_sweeps_tenant_id_id", "sweeps", ["tenant_id", "id"])
    with op.batch_alter_table("variants") as variants:
        variants.add_column(sa.Column("sweep_id", sa.String(), nullable=True))
        variants.create_foreign_key("fk_variants_sweep_id", "sweeps", ["sweep_id"], ["id"])
        variants.create_index("ix_variants_sweep_id", ["sweep_id"])

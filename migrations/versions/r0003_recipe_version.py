"""Recipes carry the version of their fields (publisher.recipe.versions); those that are there get the one they have."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

#: a field that each version since 2 brought, as of this revision: recipes were stored with their defaults written out
BROUGHT = {
    2: "pruning.scope",
    3: "alignment.temperature evaluation.direct quantization.include_embeddings",
    4: "alignment.activation_checkpointing",
    5: "alignment.compile",
    6: "alignment.reconstruction_tokens",
    7: "alignment.quantization_aware",
    8: "alignment.gradient_matching",
    9: "pruning.calibration.corpora",
    10: "quantization.bf16_share",
    11: "alignment.practice_steps",
}
VARIANTS = sa.table("variants", sa.column("id", sa.String), sa.column("recipe", sa.JSON))
_BATCH = 500


def upgrade() -> None:
    with op.batch_alter_table("variants") as variants:
        variants.add_column(sa.Column("recipe_version", sa.Integer(), nullable=True))
    _state_versions(op.get_bind())
    with op.batch_alter_table("variants") as variants:
        variants.alter_column("recipe_version", existing_type=sa.Integer(), nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("variants") as variants:
        variants.drop_column("recipe_version")


def _state_versions(connection: sa.Connection) -> None:
    written = sa.table("variants", sa.column("id", sa.String), sa.column("recipe_version", sa.Integer))
    last = ""
    while rows := connection.execute(
        sa.select(VARIANTS).where(VARIANTS.c.id > last).order_by(VARIANTS.c.id).limit(_BATCH)
    ).all():
        for row in rows:
            values = {"recipe_version": version_of(row.recipe)}
            connection.execute(sa.update(written).where(written.c.id == row.id).values(values))
        last = rows[-1].id


def version_of(recipe: Mapping[str, object]) -> int:
    """The last version whose fields, and those of all before it, the recipe has in the parts that it has."""
    missing = (number for number, fields in BROUGHT.items() for field in fields.split() if _lacks(recipe, field))
    return next(missing, max(BROUGHT) + 1) - 1


def _lacks(recipe: Mapping[str, object], field: str) -> bool:
    *way, name = field.split(".")
    part: object = recipe
    for step in way:
        part = part.get(step) if isinstance(part, Mapping) else None
    return isinstance(part, Mapping) and name not in part

"""Long lists: variants are sorted by what was measured; a long job's stages are found without reading all it told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

VARIANTS = sa.table(
    "variants",
    *(sa.column("id", sa.String()), sa.column("manifest", sa.JSON(none_as_null=True))),
    *(sa.column("reduction", sa.Float()), sa.column("verdict", sa.String())),
)
_BATCH = 500


def upgrade() -> None:
    # a process of the version before writes rows without these meanwhile
    with op.batch_alter_table("variants") as variants:
        variants.add_column(sa.Column("reduction", sa.Float(), nullable=True))
        variants.add_column(sa.Column("verdict", sa.String(), nullable=True))
        variants.create_index("ix_variants_reduction", ["tenant_id", "reduction", "id"])
        variants.create_index("ix_variants_verdict", ["tenant_id", "verdict", "id"])
    for part in _published():
        op.get_bind().execute(
            VARIANTS.update()
            .where(VARIANTS.c.id == sa.bindparam("of"))
            .values(reduction=sa.bindparam("fewer"), verdict=sa.bindparam("said")),
            [{"of": id, "fewer": _reduction(manifest), "said": _verdict(manifest)} for id, manifest in part],
        )
    steps = sa.text("kind IN ('state', 'stage')")
    op.create_index("ix_job_events_steps", "job_events", ["job_id", "seq"], sqlite_where=steps, postgresql_where=steps)


def _published() -> Iterator[list[tuple[str, Mapping[str, Any]]]]:
    """In parts: manifests are large."""
    last = ""
    columns = sa.select(VARIANTS.c.id, VARIANTS.c.manifest).where(VARIANTS.c.manifest.is_not(None))
    while True:
        found = op.get_bind().execute(columns.where(VARIANTS.c.id > last).order_by(VARIANTS.c.id).limit(_BATCH)).all()
        if not found:
            return
        last = found[-1].id
        yield [(row.id, row.manifest) for row in found]


def _reduction(manifest: Mapping[str, Any]) -> float | None:
    counts = manifest.get("parameters")
    if not isinstance(counts, Mapping) or not isinstance(counts.get("base"), int):
        return None
    left = counts.get("pruned", counts.get("checkpoint"))
    return counts["base"] / max(left, 1) if isinstance(left, int) else None


def _verdict(manifest: Mapping[str, Any]) -> str | None:
    """As publisher.manifest.verdict had it at this revision."""
    certificate = (manifest.get("evaluation") or {}).get("certificate")
    if not certificate:
        return None
    gain = (certificate.get("differences") or {}).get(certificate.get("corpus"))
    if not gain:
        return "not_stated"
    mean, error = gain.get("mean"), gain.get("standard_error")
    if gain.get("documents", 0) < 8 or error is None:
        return "inconclusive"
    if mean <= 0:
        return "failed"
    if mean <= 2 * error:
        return "not_significant"
    return "passed" if mean >= 1e-3 else "negligible"


def downgrade() -> None:
    op.drop_index("ix_job_events_steps", "job_events")
    with op.batch_alter_table("variants") as variants:
        variants.drop_index("ix_variants_verdict")
        variants.drop_index("ix_variants_reduction")
        variants.drop_column("verdict")
        variants.drop_column("reduction")

"""Magnitude: the L2 norm of what a unit owns, or a weight's absolute value."""

from __future__ import annotations

from publisher.recipe.criteria.spec import Comparison, Criterion, CriterionSpec, UnitScoring, WeightPruning

MAGNITUDE = CriterionSpec(
    name=Criterion.MAGNITUDE,
    words="the magnitude of weights",
    reads_text=False,
    units=UnitScoring(
        score="worker.pruning.importance:score_by_magnitude",
        compared=Comparison.WITHIN_LAYER,
        readings=1,
        checks_weights=True,
    ),
    weights=WeightPruning(prune="worker.pruning.unstructured.criteria:prune_by_magnitude", inputs=None),
)

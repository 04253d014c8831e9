"""Wanda (arXiv 2306.11695): |weight| × L2 norm of its input, of a unit summed over all weights that it owns."""

from __future__ import annotations

from publisher.recipe.criteria.spec import (
    Comparison,
    Criterion,
    CriterionSpec,
    InputStatistic,
    UnitScoring,
    WeightPruning,
)

WANDA = CriterionSpec(
    name=Criterion.WANDA,
    words="weights times the norm of their inputs on calibration text (Wanda)",
    reads_text=True,
    units=UnitScoring(
        score="worker.pruning.importance:score_by_wanda",
        compared=Comparison.WITHIN_LAYER,
        readings=1,
        # forward for what enters each matrix
        operations=2,
    ),
    weights=WeightPruning(
        prune="worker.pruning.unstructured.criteria:prune_by_wanda",
        inputs=InputStatistic.SQUARES,
        # forward, and again for what the pruned layer puts out
        operations=4,
    ),
)

"""Chance: the baseline that every other criterion has to beat."""

from __future__ import annotations

from publisher.recipe.criteria.spec import Comparison, Criterion, CriterionSpec, UnitScoring

RANDOM = CriterionSpec(
    name=Criterion.RANDOM,
    words="chance",
    reads_text=False,
    draws=True,
    # all draws are from one distribution
    units=UnitScoring(score="worker.pruning.importance:score_by_chance", compared=Comparison.ACROSS_LAYERS),
)

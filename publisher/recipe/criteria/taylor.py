"""First-order Taylor importance: |weight × gradient of the loss|, summed over what a unit owns (LLM-Pruner)."""

from __future__ import annotations

from publisher.recipe.criteria.spec import Comparison, Criterion, CriterionSpec, UnitScoring

TAYLOR = CriterionSpec(
    name=Criterion.TAYLOR,
    words="first-order Taylor importance on calibration text",
    reads_text=True,
    units=UnitScoring(
        score="worker.pruning.taylor:score_units",
        # all are changes of one and the same loss
        compared=Comparison.PER_PARAMETER,
        readings=2,
        # forward, and on the way back each layer's forward again with its backward
        operations=8,
    ),
)

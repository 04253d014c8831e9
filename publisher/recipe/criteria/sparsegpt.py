"""SparseGPT (arXiv 2301.00774): weights go one input column at a time, and those behind make up for them."""

from __future__ import annotations

from publisher.recipe.criteria.spec import Criterion, CriterionSpec, InputStatistic, WeightPruning

SPARSEGPT = CriterionSpec(
    name=Criterion.SPARSEGPT,
    words="SparseGPT, which makes up for what is removed with the weights that stay, on calibration text",
    reads_text=True,
    weights=WeightPruning(
        prune="worker.pruning.unstructured.sparsegpt:by_sparsegpt",
        inputs=InputStatistic.HESSIAN,
        # forward, and again for what the pruned layer puts out
        operations=4,
    ),
)

"""Whether a family can be pruned, found out by pruning a tiny model of it and comparing it with its base."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from publisher.architecture.structure import Unit
from publisher.errors import PublisherError, UnsupportedModel
from publisher.families import Family
from worker.families.checks import check_pair
from worker.families.pair import Pair, exact, pruned_pair, third_party
from worker.families.reference import Float64, switched_off

TOLERANCE = 1e-9
#: What was removed has to make a difference, or nothing is proved.
_NOTICEABLE = 1e-3


def examine(family: str) -> Family:
    """What the oracle finds of one of transformers' families; whatever goes wrong becomes the reason."""
    units: list[str] = []
    difference: float | None = None
    reason = None
    try:
        with TemporaryDirectory() as folder:
            pair = pruned_pair(family, Path(folder))
            units = [unit.value for unit in Unit if any(unit is removed for _, removed in pair.kept)]
            difference = largest_difference(pair)
            if not difference < TOLERANCE:
                raise UnsupportedModel(f"pruned and base model differ by {difference:.1e}")
            check_pair(pair)
    except PublisherError as refused:
        reason = refused.message
    return Family(
        family=family,
        model_class=MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family],
        supported=reason is None,
        units=units,
        largest_difference=None if difference is None else float(f"{difference:.1e}"),
        reason=reason,
    )


@torch.no_grad()
def largest_difference(pair: Pair) -> float:
    """Between the logits of the pruned model and of the base model with the same units switched off, in float64."""
    with third_party("its pruned model does not load or run"), Float64():
        found = exact(pair.pruned)(pair.tokens).logits
    with third_party("its base model does not run"), Float64():
        base = exact(pair.base)
        whole = base(pair.tokens).logits
        with switched_off(base, pair.geometry, pair.kept):
            wanted = base(pair.tokens).logits
    if not (whole - found).abs().max() > _NOTICEABLE:
        raise UnsupportedModel("what is removed makes no difference to its tiny model")
    return float((found - wanted).abs().max())

"""Whether a family can be pruned, found out by pruning a tiny model of it and comparing it with its base."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from publisher.architecture.structure import Unit
from publisher.errors import PublisherError, UnsupportedModel
from publisher.families.known import Family
from worker.families.checks import check_pair
from worker.families.pair import Pair, exact, pruned_pair, third_party
from worker.families.reference import Float64, switched_off
from worker.families.tiny import options_of

TOLERANCE = 1e-9
#: What was removed has to make a difference, or nothing is proved.
_NOTICEABLE = 1e-3


def examine(family: str) -> Family:
    """What the oracle finds of one of transformers' families; whatever goes wrong becomes the reason."""
    found = Family(family=family, model_class=MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family], supported=False, units=[])
    try:
        with TemporaryDirectory() as folder:
            pair = pruned_pair(family, Path(folder))
            found = found.model_copy(update=_removed(pair))
            difference = max(largest_difference(pair), _difference_with_options(family, Path(folder)))
            found = found.model_copy(update={"largest_difference": float(f"{difference:.1e}")})
            if not difference < TOLERANCE:
                raise UnsupportedModel(f"pruned and base model differ by {difference:.1e}")
            check_pair(pair)
    except PublisherError as refused:
        return found.model_copy(update={"reason": _reason(family, refused)})
    return found.model_copy(update={"supported": True})


def _difference_with_options(family: str, folder: Path) -> float:
    """The same for a model with every bias and norm that the family knows; 0 if it has no such switch."""
    options = options_of(family)
    if not options:
        return 0.0
    with third_party(f"not with {', '.join(options)}"):
        return largest_difference(pruned_pair(family, folder / "options", options))


def _removed(pair: Pair) -> dict[str, object]:
    return {
        "units": [unit.value for unit in Unit if any(unit is removed for _, removed in pair.kept)],
        "whole": {unit.value: reason for unit, reason in pair.geometry.whole.items()},
    }


def _reason(family: str, refused: PublisherError) -> str:
    """As the rest of a sentence that has named the family already."""
    return refused.message.removeprefix(f"family {family!r} is not supported: ").removesuffix(".")


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

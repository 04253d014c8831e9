"""Quantization-aware alignment: the loss is that of the 4-bit weights that will be published, not of their masters.

Each step's forward and backward run on weights as quantizing makes them; the gradient is then applied to the fp32
masters, as if rounding were the identity (straight-through estimator: Bengio et al., arXiv 1308.3432; for models that
a teacher trains: LLM-QAT, arXiv 2305.17888). So the weights end where rounding them costs little, with no data or pass
of its own, and with whatever optimizer trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager

import torch
from torch import Tensor, nn

#: (name, weight) → what it is within `rounded()`
Rounded = Callable[[str, Tensor], Tensor]


class Rounding:
    """Weights of a model, by name, that are rounded within `rounded()`, and may be changed there in any other way.

    Takes the memory of these weights once more while a step is computed.
    """

    def __init__(self, weights: Mapping[str, Tensor], rounded: Rounded) -> None:
        self._weights, self._rounded = dict(weights), rounded
        self._masters: dict[str, Tensor] = {}

    @contextmanager
    def rounded(self) -> Iterator[None]:
        """Between a step's first forward and its last backward; the masters are there again after it."""
        with torch.no_grad():
            for name, weight in self._weights.items():
                self._masters[name] = weight.detach().clone()
                weight.copy_(self._rounded(name, weight))
        try:
            yield
        finally:
            self.restore()

    @torch.no_grad()
    def restore(self) -> None:
        """Bring back the masters, if they are not there: before they are saved in the middle of a step."""
        while self._masters:
            name, master = self._masters.popitem()
            self._weights[name].copy_(master)


def no_rounding() -> Rounding:
    return Rounding({}, lambda name, weight: weight)


def nf4_rounding(model: nn.Module, names: Set[str], changed: Set[str] = frozenset()) -> Rounding:
    """Of those parameters of `model` in `names` that are trained; those in `changed` are brought back as well."""
    from worker.quantization.packing import round_trip

    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return Rounding(
        {name: weight for name, weight in trained.items() if name in names | changed},
        lambda name, weight: round_trip(weight) if name in names else weight,
    )

"""A reference adapter: what somebody's LoRA would become, trained a few steps on the base model while the pruned one
learns.

Adapters are trained on the pruned model for many steps, and what they learn has to be right on the base model all the
way, not at their start alone. So while gradients are matched (gradient_matching.py) both models wear the same LoRA, on
the base model recovered, and each batch takes it a step further by the base model's own gradient; after `steps` batches
a new one starts. The first batch of each is matched without any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from publisher.checkpoint.masks import Masks
from publisher.checkpoint.recovery import recover_tensor

#: Of the LoRA; its update is B A times alpha over rank. Five such steps change SmolLM2-135M's weights about as much as
#: the certificate's probe does.
_RANK, _SCALE, _STEP = 8, 2.0, 5e-4
_STATE = "practice."


class ReferenceAdapter:
    """`weights` of the pruned model and `layers` of the base model, by the name of the weight; both (out, in).

    With less than two `steps` no batch could wear what another one taught: then nothing is worn.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], layers: Mapping[str, nn.Linear], masks: Masks, steps: int
    ) -> None:
        self._weights, self._layers = (weights, layers) if steps > 1 else ({}, {})
        self._masks, self._steps = masks, max(steps, 1)
        self._taken = 0
        self._a: dict[str, Tensor] = {}
        self._b: dict[str, Tensor] = {}
        self._next: dict[str, Tensor] = {}

    @torch.no_grad()
    def put_on(self) -> None:
        """Add the update to the pruned model's weights, which whoever calls brings back."""
        if self._untrained:
            self._start()
            return
        for name, weight in self._weights.items():
            weight.addmm_(self._b[name].to(weight), self._a[name].to(weight), alpha=_SCALE)

    @contextmanager
    def on_base(self) -> Iterator[None]:
        """Within the block the base model computes with the update recovered."""
        if self._untrained:
            yield
            return
        hooks = [
            layer.register_forward_hook(partial(_added, a=self._recovered(name, "A"), b=self._recovered(name, "B")))
            for name, layer in self._layers.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def learn(self, gradients: Mapping[str, Tensor]) -> None:
        """Choose the next step by the base model's gradients at kept entries (out, in): Adam's first, but with one size
        for a matrix. `advance` takes it: training that is stopped within the batch does the whole batch again."""
        for name in self._weights:
            gradient = gradients[name]
            slope = gradient @ self._a[name].to(gradient).T
            size = slope.square().mean().sqrt().clamp_min(torch.finfo(slope.dtype).tiny)
            self._next[name] = self._b[name] - (_STEP * slope / size).to(self._b[name])

    def advance(self) -> None:
        """The batch is done: what was learnt counts, and after `steps` of them a new adapter starts."""
        self._b, self._next = self._next, {}
        self._taken += 1

    def state(self) -> dict[str, Tensor]:
        """Between batches; A follows from the count."""
        return {f"{_STATE}taken": torch.tensor(self._taken)} | {f"{_STATE}{name}": b for name, b in self._b.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self._taken = int(tensors[f"{_STATE}taken"])
        if not self._untrained:
            self._start()
            self._b = {name: tensors[f"{_STATE}{name}"].to(weight.device) for name, weight in self._weights.items()}

    @property
    def _untrained(self) -> bool:
        return self._taken % self._steps == 0

    def _start(self) -> None:
        """A as PEFT draws it, uniform within 1 / sqrt(in), and B zero; drawn on the CPU, where chance is the same for
        all, and kept where the weight is, which every batch meets them at."""
        chance = torch.Generator().manual_seed(self._taken // self._steps)
        for name, weight in self._weights.items():
            rows, columns = weight.shape
            drawn = (2 * torch.rand(_RANK, columns, generator=chance) - 1) / columns**0.5
            self._a[name] = drawn.to(weight.device)
            self._b[name] = torch.zeros(rows, _RANK, device=weight.device)

    def _recovered(self, name: str, part: str) -> Tensor:
        tensor = self._a[name] if part == "A" else self._b[name]
        module = name.removesuffix(".weight")
        return recover_tensor(f"{module}.lora_{part}.weight", tensor, self._masks).to(self._layers[name].weight)


def _added(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, *, a: Tensor, b: Tensor) -> Tensor:
    return output + _SCALE * functional.linear(functional.linear(inputs[0], a), b)

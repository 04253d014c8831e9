"""Calibration text on its way through a streamed model, a few sequences at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from publisher.architecture.geometry import Geometry
from publisher.architecture.structure import Unit
from publisher.errors import RequestFault
from worker.streaming.capture import Arguments, LayerInputs, call_layer, sharing
from worker.streaming.model import LayerStream
from worker.streaming.states import StateStore

#: (steps done, steps in all); a step is one pass of a few sequences through one layer
Report = Callable[[int, int], None]
#: what stands around the forward of all sequences through a layer: (layer, its module) → context
Around = Callable[[int, nn.Module], AbstractContextManager[None]]

#: what one layer may hold of its inputs and intermediate results, for a backward pass
ACTIVATION_BYTES = 2**30
#: more tokens at once are no faster
_PASS_TOKENS = 2048


def plan_passes(
    geometry: Geometry, sequences: Tensor, activation_bytes: int = ACTIVATION_BYTES, gradient_bytes: int = 0
) -> list[slice]:
    """Rows of `sequences` `(samples, length)` that go through a layer together.

    All in one pass if that takes no more memory than several passes and the `gradient_bytes` that only those need.
    """
    samples, length = sequences.shape
    token_bytes = _bytes_per_token(geometry)
    tokens = max(length, min(_PASS_TOKENS, activation_bytes // token_bytes))
    at_once = samples * length
    rows = samples if (at_once - tokens) * token_bytes <= gradient_bytes else tokens // length
    return [slice(start, min(start + rows, samples)) for start in range(0, samples, rows)]


def gradient_bytes(geometry: Geometry) -> int:
    """Of the weights of the widest layer, in fp32."""
    return 4 * max(sum(math.prod(spec.shape) for spec in kind.tensors.values()) for kind in geometry.kinds)


def _bytes_per_token(geometry: Geometry) -> int:
    """Of the widest layer in fp32: inputs and outputs of its products, and a quarter more for what is between them.

    Measured with hidden size 4096 and 14336 neurons: 0.35 MB, where this says 0.40.
    """
    floats = 1
    for kind in geometry.kinds:
        experts = kind.units.get(Unit.EXPERTS, 0)
        used = geometry.experts_per_token / experts if experts else 1.0
        layer = sum(
            sum(spec.shape[-2:]) * (used if spec.expert is not None else 1.0)
            for spec in kind.tensors.values()
            if len(spec.shape) > 1
        )
        floats = max(floats, round(1.25 * layer))
    return floats * 4


class Activations:
    """Hidden states of `sequences` `(samples, length)` int64 before and after each layer of `stream`.

    `passes` are the rows that go through a layer together. States are kept in `scratch` when they are many, so that
    memory depends neither on their number nor on that of the layers.
    """

    def __init__(self, stream: LayerStream, sequences: Tensor, passes: list[slice], scratch: Path) -> None:
        self.stream, self.passes = stream, passes
        self._batches = [sequences[rows] for rows in passes]
        size = sequences.numel() * stream.config.hidden_size * torch.empty(0, dtype=stream.dtype).element_size()
        self._store = StateStore(scratch, size * (stream.layers + 2), stream.device)
        self._arguments: list[tuple[Arguments, ...]] = []
        self._embed()

    def tokens(self, batch: int) -> Tensor:
        """`(rows, length)` of one pass."""
        return self._batches[batch]

    def arguments(self, layer: int, batch: int) -> Arguments:
        return self._arguments[batch][layer]

    def entering(self, layer: int, batch: int) -> Tensor:
        """Hidden states `(rows, length, hidden_size)` before `layer`; after the last one, layer = layers."""
        return self._store.get(_name(layer, batch))

    def replace(self, layer: int, batch: int, states: Tensor) -> None:
        """Keep other states in place of those that enter `layer`."""
        self._store.put(_name(layer, batch), states)

    def drop(self, layer: int, batch: int) -> None:
        self._store.drop(_name(layer, batch))

    def forward(self, *, keep: bool, report: Callable[[], None], around: Around | None = None) -> None:
        """Through all layers; `keep` what entered each of them. `report` is called after every pass of every layer.

        Raises RequestFault if hidden states are not finite.
        """
        for layer in range(self.stream.layers):
            with (
                self.stream.layer(layer, ahead=layer + 1) as module,
                around(layer, module) if around else nullcontext(),
            ):
                for batch in range(len(self.passes)):
                    self._advance(layer, module, batch)
                    if not keep:
                        self.drop(layer, batch)
                    report()

    @torch.no_grad()
    def _advance(self, layer: int, module: nn.Module, batch: int) -> None:
        states = call_layer(module, self.entering(layer, batch), self.arguments(layer, batch))
        if not states.isfinite().all():
            raise self._not_finite(layer, module)
        self.replace(layer + 1, batch, states)

    def _embed(self) -> None:
        earlier: LayerInputs | None = None
        with self.stream.outside():
            for batch, tokens in enumerate(self._batches):
                inputs = sharing(self.stream.inputs(tokens), earlier)
                self._arguments.append(inputs.arguments)
                self.replace(0, batch, inputs.hidden)
                earlier = inputs

    def _not_finite(self, layer: int, module: nn.Module) -> RequestFault:
        for name, parameter in module.named_parameters():
            if not parameter.isfinite().all():
                stored = ", ".join(self.stream.stored(layer, name))
                return RequestFault(
                    f"layer {layer} of the base model has weights that are not finite: {stored}.",
                    way_out="Fetch or save the base model again.",
                )
        return RequestFault(
            f"layer {layer} of the base model gives hidden states that are not finite, although its weights are.",
            way_out="Check that the base model gives finite losses; criteria random and magnitude read no text.",
        )


class Steps:
    """Counts them; each call is one done."""

    def __init__(self, report: Report, total: int) -> None:
        self._report, self._done, self._total = report, 0, total

    def __call__(self) -> None:
        self._done += 1
        self._report(self._done, self._total)


def _name(layer: int, batch: int) -> str:
    return f"layer-{layer}-batch-{batch}"

"""What a model's own forward hands to each decoder layer: rotary embeddings, masks of its kind, positions.

The forward runs with every layer replaced by one that notes what it is given and lets the hidden states through.
So nothing about a family has to be known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Arguments:
    """What a layer is called with besides the hidden states: positional after them, and by keyword."""

    positional: tuple[Any, ...]
    named: Mapping[str, Any]


@dataclass(frozen=True)
class LayerInputs:
    """`hidden` `(rows, length, hidden_size)` enters layer 0; `arguments` has one entry per layer."""

    hidden: Tensor
    arguments: tuple[Arguments, ...]


def call_layer(layer: nn.Module, hidden: Tensor, arguments: Arguments) -> Tensor:
    """The hidden states after `layer`, whether it returns them alone or first of several things."""
    output = layer(hidden, *arguments.positional, **arguments.named)
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


class Recorder:
    """Stands in for the layers of one forward. `as_tuple`: the family's layers return tuples."""

    def __init__(self, as_tuple: bool) -> None:
        self.hidden: list[Tensor] = []
        self.arguments: list[Arguments] = []
        self._as_tuple = as_tuple

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor]:
        hidden, positional = (args[0], args[1:]) if args else (kwargs.pop("hidden_states"), ())
        self.hidden.append(hidden)
        self.arguments.append(Arguments(positional, kwargs))
        return (hidden,) if self._as_tuple else hidden


def sharing(inputs: LayerInputs, earlier: LayerInputs | None) -> LayerInputs:
    """The same, with tensors that equal those of `earlier` replaced by them.

    Masks and rotary embeddings of batches of one shape are alike; of many batches, one copy is enough.
    """
    if earlier is None:
        return inputs
    pairs = zip(inputs.arguments, earlier.arguments, strict=True)
    return replace(inputs, arguments=tuple(_shared(now, then) for now, then in pairs))


def _shared(now: Any, then: Any) -> Any:
    if now is then or type(now) is not type(then):
        return now
    if isinstance(now, Tensor):
        same = now.shape == then.shape and now.dtype == then.dtype and torch.equal(now, then)
        return then if same else now
    if isinstance(now, Arguments):
        return Arguments(_shared(now.positional, then.positional), _shared(now.named, then.named))
    if type(now) is tuple and len(now) == len(then):
        return tuple(_shared(a, b) for a, b in zip(now, then, strict=True))
    if type(now) is dict:
        return {key: _shared(value, then.get(key)) for key, value in now.items()}
    return now


@contextmanager
def standing_in(layers: Sequence[nn.Module], forwards: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """Within, each layer's forward is another function; all that a model asks of a layer besides stays."""
    for layer, forward in zip(layers, forwards, strict=True):
        layer.forward = forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward

"""Which matrices 4 bits would hurt most: a few of them stay in bf16.

Each is rounded to the nearest by itself, and what this changes of its layer's output h is measured on text, relative
to it: the mean over tokens of |Δh|² / |h|², to which Σ |Δh|² / Σ |h|² is added, since a few tokens have a hundred times
the length of others, and all others attend to them (massive activations, arXiv 2402.17762). Those with the largest
error per weight stay. That a few matrices, values' projections and some of the MLPs' last ones, cost 4-bit models most
of what they lose is what llama.cpp's and Unsloth's mixed precisions rest on, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from worker.quantization.nf4 import scheme_of
from worker.quantization.packing import round_trip
from worker.quantization.streamed import four_bit_names
from worker.streaming.capture import call_layer
from worker.streaming.casting import cast_once
from worker.streaming.hidden import CalibrationStates
from worker.streaming.model import LayerStream, empty_model

#: layers done, of how many; may raise to end the work
Report = Callable[[int, int], None]


def matrices_in_bf16(
    base: LayerStream, pruned: Path, share: float, sequences: Tensor, *, scratch: Path, report: Report
) -> list[str]:
    """The linear modules of the model in folder `pruned` that stay in bf16: at most `share` of their weights.

    Measured is what rounding does to the base model, in which hidden states are what they should be.
    """
    names = four_bit_names(pruned, scheme_of(pruned))
    model = empty_model(AutoConfig.from_pretrained(pruned, local_files_only=True), torch.bfloat16)
    weights = {name: weight.numel() for name, weight in model.named_parameters() if name in names}
    errors = rounding_errors(base, sequences, names, scratch=scratch, report=report)
    return [name.removesuffix(".weight") for name in kept_whole(errors, weights, share)]


@torch.no_grad()
def rounding_errors(
    model: LayerStream,
    sequences: Tensor,
    names: Collection[str],
    *,
    scratch: Path,
    report: Report = lambda done, total: None,
) -> dict[str, float]:
    """Of those linear layers' weights of `model` that are among `names` and in its decoder layers: by name, what
    rounding each by itself changes of its layer's output.

    `sequences` int `(samples, tokens)`; one layer is in memory at a time, and a hidden state of all `sequences` twice.
    `scratch`: a folder for what is too large. `report` (layers done, of how many) may raise to end the work.
    """
    states = CalibrationStates(model, sequences.long(), scratch)
    errors: dict[str, float] = {}
    for index in range(model.layers):
        report(index, model.layers)
        with model.layer(index, ahead=index + 1) as layer:
            cast_once(layer, model.dtype)
            after = [call_layer(layer, hidden, arguments) for _, hidden, arguments in states.entering(index)]
            for path, module in layer.named_modules():
                name = f"{model.layer_name(index)}.{path}.weight"
                if isinstance(module, nn.Linear) and name in names:
                    with _rounded(module):
                        changed = (call_layer(layer, hidden, given) for _, hidden, given in states.entering(index))
                        errors[name] = _error(zip(after, changed, strict=True))
        for batch, output in zip(states.batches, after, strict=True):
            states.put(batch, output)
    report(model.layers, model.layers)
    return errors


@contextmanager
def _rounded(module: nn.Linear) -> Iterator[None]:
    weight = module.weight.data
    module.weight.data = round_trip(weight)
    try:
        yield
    finally:
        module.weight.data = weight


def _error(batches: Iterator[tuple[Tensor, Tensor]]) -> float:
    """Of a layer's output, as it is and as it is changed."""
    shares, errors, sizes = [], [], []
    for after, changed in batches:
        error, size = (changed - after).double().square().sum(-1), after.double().square().sum(-1)
        shares.append((error / size).flatten())
        errors.append(error.sum())
        sizes.append(size.sum())
    return float(torch.cat(shares).mean() + sum(errors) / sum(sizes))


def kept_whole(errors: Mapping[str, float], weights: Mapping[str, int], share: float) -> list[str]:
    """Which of `errors` stay, in their order: the largest per weight, together at most `share` of all `weights`.

    `weights`: how many each name has, of all names that would be in 4 bits.
    """
    left, kept = share * sum(weights.values()), set()
    for name in sorted(errors, key=lambda name: errors[name] / weights[name], reverse=True):
        if weights[name] <= left:
            kept.add(name)
            left -= weights[name]
    return [name for name in errors if name in kept]

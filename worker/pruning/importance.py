"""How much each KV head and neuron matters: a score per unit of every group of every layer.

All criteria return `{group.importance_key(layer): (units,)}`.

- taylor: first-order change of the loss when the unit is removed, |weight × gradient| summed over all its weights
  (LLM-Pruner, arXiv 2305.11627, "param_first"), gradients accumulated over the calibration samples;
- magnitude: L2 norm of all its weights;
- random: uniform, the same for the same seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from worker.alignment.batch_loss import NextToken
from worker.head import head_of
from worker.pruning.groups import Group, Matrix

#: how many of how many samples are done
Report = Callable[[int, int], None]


def unit_sums(values: Tensor, axis: int, units: int) -> Tensor:
    """Sum of `values` `(out, in)` over everything that belongs to each unit along `axis`: `(units,)`."""
    return values.movedim(axis, 0).reshape(units, -1).sum(dim=1)


def random_importance(groups: Sequence[Group], layers: int, seed: int) -> dict[str, Tensor]:
    """Uniform in [0, 1). Each group has a stream of its own, so one layer's scores do not depend on another's."""
    return {
        group.importance_key(layer): torch.rand(group.units, generator=_stream(seed, group.importance_key(layer)))
        for layer in range(layers)
        for group in groups
    }


def magnitude_importance(
    groups: Sequence[Group], layers: int, weights: Iterable[tuple[str, Tensor]]
) -> dict[str, Tensor]:
    """`weights` are (tensor name, tensor) in any order, one at a time; names outside of the groups are passed over."""
    places = {
        f"{group.module(layer, matrix)}.weight": (group.importance_key(layer), group, matrix)
        for layer, group, matrix in _matrices(groups, layers)
    }
    squares = {key: torch.zeros(group.units, dtype=torch.float64) for key, group, _ in places.values()}
    for name, weight in weights:
        if name in places:
            key, group, matrix = places[name]
            squares[key] += unit_sums(weight.double().square(), matrix.axis, group.units)
    return {key: total.sqrt() for key, total in squares.items()}


def taylor_importance(
    model: PreTrainedModel, groups: Sequence[Group], sequences: Tensor, *, batch_size: int, report: Report
) -> dict[str, Tensor]:
    """`sequences` `(samples, tokens)`; the gradient is that of the mean over samples of the next-token loss.

    Leaves the model with gradients of the groups' weights only.
    """
    layers = model.config.num_hidden_layers
    _require_gradients(model, groups, layers)
    samples = len(sequences)
    objective = NextToken(head_of(model))
    positions = objective.positions(sequences)
    for start in range(0, samples, batch_size):
        batch = sequences[start : start + batch_size].to(model.device)
        loss = objective(model, batch) / positions
        loss.backward()  # type: ignore[no-untyped-call]
        report(start + len(batch), samples)
    return {
        group.importance_key(layer): _taylor_scores(model, group, layer) for layer in range(layers) for group in groups
    }


def _taylor_scores(model: PreTrainedModel, group: Group, layer: int) -> Tensor:
    scores = torch.zeros(group.units, dtype=torch.float64)
    for matrix in group.matrices:
        weight = _projection(model, group, layer, matrix).weight
        assert weight.grad is not None
        product = (weight.detach() * weight.grad).abs()
        scores += unit_sums(product, matrix.axis, group.units).double().cpu()
    return scores


def _require_gradients(model: PreTrainedModel, groups: Sequence[Group], layers: int) -> None:
    """Of the groups' weights and nothing else: embeddings and head are the largest matrices of small models."""
    model.requires_grad_(False)
    model.zero_grad(set_to_none=True)
    for layer, group, matrix in _matrices(groups, layers):
        _projection(model, group, layer, matrix).weight.requires_grad_(True)


def _projection(model: PreTrainedModel, group: Group, layer: int, matrix: Matrix) -> nn.Linear:
    module = model.get_submodule(group.module(layer, matrix))
    assert isinstance(module, nn.Linear)
    return module


def _matrices(groups: Sequence[Group], layers: int) -> Iterator[tuple[int, Group, Matrix]]:
    for layer in range(layers):
        for group in groups:
            for matrix in group.matrices:
                yield layer, group, matrix


def _stream(seed: int, key: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

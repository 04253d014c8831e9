"""First-order importance of units (LLM-Pruner, arXiv 2305.11627, "param_first"), one layer in memory at a time.

The score is |weight × gradient| summed over all weights that a unit owns: how much the loss would change, to first
order, if each of them became zero. The gradient is that of the mean next-token loss over all calibration sequences.

Going forward, only what enters each layer is kept. Coming back, layer by layer, the forward is done again with a
graph, the gradient by the layer's output becomes that by its input, and the gradients by its weights become scores
and are dropped. The result is that of a full backward pass; doing each layer's forward twice adds a third to the work.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from publisher.architecture.geometry import Geometry
from publisher.architecture.structure import LayerKind, TensorSpec, Unit
from worker.pruning.activations import ACTIVATION_BYTES, Activations, Report, Steps, gradient_bytes, plan_passes
from worker.pruning.scores import UnitScores, is_scored, sums_along
from worker.pruning.scoring import ScoringWork
from worker.pruning.selection import importance_key
from worker.streaming.capture import call_layer
from worker.streaming.casting import Listener, listen
from worker.streaming.model import Head, LayerStream

#: logits that exist at once: 128 MiB in fp32, and twice as much again for their softmax and gradient
LOGITS_AT_ONCE = 2**25
#: weights whose gradient exists at once when it is complete after one pass: 64 MiB
_GRADIENTS_AT_ONCE = 2**24


def score_units(work: ScoringWork) -> dict[str, Tensor]:
    sequences = work.read_text()
    return taylor_importance(work.stream(), work.geometry, sequences, scratch=work.scratch, report=work.passes)


def taylor_importance(
    stream: LayerStream,
    geometry: Geometry,
    sequences: Tensor,
    *,
    scratch: Path,
    report: Report,
    activation_bytes: int = ACTIVATION_BYTES,
) -> dict[str, Tensor]:
    """Scores `(units,)` of every layer's units by `importance_key`, from `sequences` `(samples, length)` int64.

    In memory at once: one layer as it is stored and its activations for one pass, which take about
    `activation_bytes`; if the sequences need several passes, also the layer's gradients in fp32, since they must be
    complete before absolute values are taken. Hidden states wait in the folder `scratch`. Raises RequestFault if
    weights, hidden states or gradients are not finite.
    """
    passes = plan_passes(geometry, sequences, activation_bytes, gradient_bytes(geometry))
    steps = Steps(report, 2 * stream.layers * len(passes))
    activations = Activations(stream, sequences, passes, scratch)
    activations.forward(keep=True, report=steps)
    _differentiate_loss(activations, sequences)
    scores: dict[str, Tensor] = {}
    for layer in reversed(range(stream.layers)):
        with stream.layer(layer, ahead=layer - 1) as module:
            found = _score_layer(activations, layer, module, geometry.kind(layer), steps)
        scores |= {importance_key(geometry, layer, unit): total for unit, total in found.items()}
    return scores


def _score_layer(
    activations: Activations, layer: int, module: nn.Module, kind: LayerKind, step: Callable[[], None]
) -> dict[Unit, Tensor]:
    gradients = _LayerGradients(module, kind, several_passes=len(activations.passes) > 1)
    for batch in range(len(activations.passes)):
        _go_back(activations, layer, module, batch)
        step()
    return gradients.scores(layer).totals


def _differentiate_loss(activations: Activations, sequences: Tensor) -> None:
    """What leaves the last layer is replaced by the loss's gradient by it."""
    samples, length = sequences.shape
    last = activations.stream.layers
    with activations.stream.head() as head:
        for batch in range(len(activations.passes)):
            hidden, tokens = activations.entering(last, batch), activations.tokens(batch)
            gradient = loss_gradient(head, tokens, hidden, activations.stream.config.vocab_size)
            activations.replace(last, batch, gradient / (samples * (length - 1)))


def loss_gradient(
    head: Head, tokens: Tensor, hidden: Tensor, vocabulary: int, logits_at_once: int = LOGITS_AT_ONCE
) -> Tensor:
    """Gradient of the next-token loss, summed over all positions, by `hidden` `(rows, length, hidden_size)`."""
    rows_at_once = max(1, logits_at_once // (vocabulary * tokens.shape[1]))
    positions = torch.split(torch.arange(tokens.shape[1] - 1), max(1, logits_at_once // (vocabulary * rows_at_once)))
    gradient = torch.zeros_like(hidden)
    for start in range(0, len(tokens), rows_at_once):
        rows = slice(start, start + rows_at_once)
        for chosen in positions:
            leaf = hidden[rows].detach().requires_grad_()
            logits = head(tokens[rows], leaf, chosen).flatten(0, 1)
            labels = tokens[rows][:, chosen + 1].flatten().to(logits.device)
            loss = functional.cross_entropy(logits.float(), labels, reduction="sum")
            gradient[rows] += torch.autograd.grad(loss, leaf)[0]
    return gradient


def _go_back(activations: Activations, layer: int, module: nn.Module, batch: int) -> None:
    """The gradient by what leaves `layer` takes the place of what entered it, as the gradient by that."""
    hidden = activations.entering(layer, batch).detach().requires_grad_()
    leaving = activations.entering(layer + 1, batch)
    with torch.enable_grad():
        output = call_layer(module, hidden, activations.arguments(layer, batch))
    torch.autograd.backward(output, leaving.to(output.dtype))
    assert hidden.grad is not None
    activations.replace(layer, batch, hidden.grad)
    activations.drop(layer + 1, batch)


class _LayerGradients:
    """Turns the gradients of one layer's weights into scores while backward passes go through it.

    A linear layer tells its input and the gradient by its output; their product is the gradient by its weight. With
    one pass it is made a block of rows at a time, and never there as a whole. Other parameters (fused experts,
    routers) get theirs from autograd.
    """

    def __init__(self, module: nn.Module, kind: LayerKind, *, several_passes: bool) -> None:
        self._module, self._kind = module, kind
        self._sums: dict[str, Tensor] = {}
        self._complete: dict[str, Tensor] = {}
        for name, spec in kind.parameters.items():
            if not is_scored(spec):
                continue
            owner = module.get_submodule(name.rpartition(".")[0])
            if type(owner) is nn.Linear:
                listen(owner, self._adding_up(name) if several_passes else self._scoring(name, spec))
            else:
                module.get_parameter(name).requires_grad_()

    def scores(self, layer: int) -> UnitScores:
        """Once, after all passes."""
        scores = UnitScores(self._kind, layer)
        for name, spec in self._kind.parameters.items():
            if not is_scored(spec):
                continue
            parameter = self._module.get_parameter(name)
            gradient = self._complete.pop(name, parameter.grad)
            if gradient is not None:
                self._sums[name] = _sums_of_products(parameter, gradient, spec.axis)
            if name in self._sums:  # an expert that no token was sent to has no gradient
                scores.add(name, spec, self._sums[name])
            owner = self._module.get_submodule(name.rpartition(".")[0])
            if type(owner) is nn.Linear:
                listen(owner, None)
        return scores

    def _scoring(self, name: str, spec: TensorSpec) -> Listener:
        weight = self._module.get_parameter(name).detach()

        def score(x: Tensor, by_y: Tensor) -> None:
            assert name not in self._sums, f"{name} is used twice in a layer"
            self._sums[name] = sums_along(
                weight,
                spec.axis,
                lambda rows, block: block.mul_(by_y[:, rows].T @ x).abs_(),
                _GRADIENTS_AT_ONCE,
            )

        return score

    def _adding_up(self, name: str) -> Listener:
        weight = self._module.get_parameter(name).detach()

        def add(x: Tensor, by_y: Tensor) -> None:
            if name not in self._complete:
                self._complete[name] = torch.zeros(weight.shape, device=weight.device)
            self._complete[name].addmm_(by_y.T.float(), x.float())

        return add


def _sums_of_products(weight: Tensor, gradient: Tensor, axis: int) -> Tensor:
    numbers: Callable[[slice, Tensor], Tensor] = lambda rows, block: block.mul_(gradient[rows]).abs_()  # noqa: E731
    return sums_along(weight.detach(), axis, numbers)

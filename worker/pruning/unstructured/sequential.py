"""Non-structured pruning of a model on disk, one decoder layer in memory at a time.

By what matrices read (wanda, sparsegpt): what enters a matrix is measured when all before it are pruned, within the
layer, too, so that it answers to what it will really be handed. (Both papers' code measures a layer while all of it is
still whole; a layer's MLP, or its experts, which come in no fixed order, are measured so here.) Criteria that look at
weights alone need neither text nor order. Which it is, and what prunes, the criterion declares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from publisher.architecture.geometry import Geometry
from publisher.architecture.sparsity import sparse_matrices
from publisher.architecture.structure import Shape
from publisher.architecture.widths import unprotected_layers
from publisher.errors import RequestFault, UnsupportedModel
from publisher.recipe import Criterion, Pruning
from publisher.recipe.criteria.register import criterion_spec
from worker.numerics.inverse_hessian import NotPositiveDefinite
from worker.pruning.unstructured.criteria import Prune
from worker.pruning.unstructured.matrices import ExpertMatrix, Matrix, matrices_of_layer, watched
from worker.pruning.unstructured.sparsity import Pruned, Sparsity, sparsity_of
from worker.pruning.unstructured.statistics import InputStatistics, Statistic, statistic_of
from worker.streaming.capture import call_layer
from worker.streaming.casting import cast_once
from worker.streaming.files import TensorFiles, all_finite
from worker.streaming.hidden import CalibrationStates
from worker.streaming.model import LayerStream

#: how much of how much is done; may raise to end the work
Report = Callable[[int, int], None]


class PrunedMatrix(NamedTuple):
    """On the CPU: `name` in the base model's files, `weight` `(out, in)` in the type it has there, `kept` bool."""

    name: str
    weight: Tensor
    kept: Tensor


def prune_by_weights(folder: Path, geometry: Geometry, pruning: Pruning, report: Report) -> Iterator[PrunedMatrix]:
    """Every matrix that the recipe prunes, in the order of layers, with a criterion that reads no inputs. `report`
    counts matrices.

    Raises RequestFault or UnsupportedModel, before the first, for what cannot be pruned so; and RequestFault for
    weights that are not finite.
    """
    files, sparsity = TensorFiles.open(folder), sparsity_of(pruning)
    prune: Prune = resolve_name(criterion_spec(pruning.criterion).pruning.prune)
    matrices = sparse_matrices(geometry, pruning)
    for done, (name, shape) in enumerate(matrices.items()):
        report(done, len(matrices))
        weight = _stored(files, name, shape)
        _refuse_not_finite(name, "weights", weight)
        for pruned in prune([weight], None, sparsity):
            yield PrunedMatrix(name, *pruned)
    report(len(matrices), len(matrices))


def prune_by_inputs(
    stream: LayerStream,
    folder: Path,
    geometry: Geometry,
    pruning: Pruning,
    *,
    sequences: Tensor,
    scratch: Path,
    report: Report,
) -> Iterator[PrunedMatrix]:
    """The same with a criterion that reads `inputs`; `sequences` `(samples, tokens)` int64 are the calibration text.

    `stream` reads the model in `folder`; hidden states that are large lie in the folder `scratch`. `report` counts
    passes of batches through layers. UnsupportedModel also if what a matrix reads cannot be seen.
    """
    wanted = sparse_matrices(geometry, pruning)
    work = _Sequential(stream, TensorFiles.open(folder), wanted, _Choice.of(pruning))
    yield from work.run(unprotected_layers(geometry, pruning), sequences, scratch, report)


@dataclass(frozen=True)
class _Choice:
    """How weights are chosen: what the recipe's criterion declares, and how many go."""

    name: Criterion
    prune: Prune
    statistic: type[Statistic]
    sparsity: Sparsity

    @classmethod
    def of(cls, pruning: Pruning) -> Self:
        declared = criterion_spec(pruning.criterion).pruning
        assert declared.inputs is not None, f"{pruning.criterion} reads no inputs: prune_by_weights is for it"
        return cls(pruning.criterion, resolve_name(declared.prune), statistic_of(declared.inputs), sparsity_of(pruning))


class _Sequential:
    def __init__(self, stream: LayerStream, files: TensorFiles, wanted: Mapping[str, Shape], choice: _Choice) -> None:
        self._stream, self._files, self._wanted, self._choice = stream, files, wanted, choice
        # experts one after the other, each with a product of its own, so that its input can be seen
        stream.skeleton.config._experts_implementation = "eager"

    @torch.no_grad()
    def run(self, layers: range, sequences: Tensor, scratch: Path, report: Report) -> Iterator[PrunedMatrix]:
        states = CalibrationStates(self._stream, sequences, scratch)
        # each layer but the last runs once for the next one's inputs, when its own matrices are pruned
        steps = _Steps(len(states.batches) * (layers.stop - 1) + len(self._wanted), report)
        for index in range(layers.stop):
            with self._stream.layer(index, ahead=index + 1 if index + 1 < layers.stop else None) as layer:
                if index in layers:
                    yield from self._prune(index, layer, states, steps)
                if index + 1 < layers.stop:
                    _advance(index, layer, states, steps)

    def _prune(self, index: int, layer: nn.Module, states: CalibrationStates, steps: _Steps) -> Iterator[PrunedMatrix]:
        matrices = {
            matrix.name: matrix for matrix in matrices_of_layer(self._stream, index, layer, self._files, self._wanted)
        }
        for name, matrix in matrices.items():
            _refuse_not_finite(name, "weights", matrix.weight)
        cast_once(layer, self._stream.dtype)
        while matrices:
            statistics = self._measured(index, layer, list(matrices.values()), states, steps)
            for first, readers in _groups(matrices, statistics).items():
                statistic = statistics.take(first, matrices[first].weight)
                for matrix, pruned in self._pruned([matrices.pop(name) for name in readers], statistic):
                    weight = pruned.weight.to(self._files.dtype(matrix.name))
                    matrix.replace(weight)
                    steps.done()
                    yield PrunedMatrix(matrix.name, weight.cpu(), pruned.kept.cpu())

    def _measured(
        self, index: int, layer: nn.Module, matrices: Sequence[Matrix], states: CalibrationStates, steps: _Steps
    ) -> InputStatistics:
        """What enters those of the layer's `matrices` that come first, whatever was before them being pruned.

        With experts it is what enters all from the first one on: which come first differs from batch to batch. And of
        the layer's last module it is all at once, which saves the longest way through the layer.
        """
        statistics = InputStatistics(self._choice.statistic)
        names = [matrix.name for matrix in matrices]
        together = names if _in_one_module(names) else (m.name for m in matrices if _of_expert(m))
        listener = _Listener(statistics, frozenset(together))
        with watched(matrices, listener):
            for _, hidden, arguments in states.entering(index):
                with listener.batch():
                    call_layer(layer, hidden, arguments)
                steps.still()
        return statistics

    def _pruned(self, readers: Sequence[Matrix], statistic: Tensor) -> Iterator[tuple[Matrix, Pruned]]:
        """Matrices that read one input, pruned by what is known of it."""
        first = readers[0].name
        _refuse_not_finite(first, "inputs", statistic)
        try:
            pruned = self._choice.prune([matrix.weight for matrix in readers], statistic, self._choice.sparsity)
            yield from zip(readers, pruned, strict=True)
        except NotPositiveDefinite as error:
            raise RequestFault(
                f"criterion {self._choice.name} cannot prune {first}: {error}.", way_out="Use criterion wanda."
            ) from error


class _Steps:
    def __init__(self, total: int, report: Report) -> None:
        self._done, self._total, self._report = 0, total, report

    def done(self) -> None:
        self._done += 1
        self.still()

    def still(self) -> None:
        """Nothing more is done, but whoever wants to end the work is heard."""
        self._report(self._done, self._total)


class _AllSeen(Exception):
    """The rest of a layer's forward would be for nothing."""


class _Listener:
    """Hands inputs on to statistics, and ends a forward that has no more to tell."""

    def __init__(self, statistics: InputStatistics, together: frozenset[str]) -> None:
        """`together`: matrices that, when one of them comes first, are not waited for one input at a time."""
        self._statistics, self._together = statistics, together
        self._first: Tensor | None = None
        self._all = False

    def __call__(self, name: str, inputs: Tensor) -> None:
        if self._first is None:
            self._first, self._all = inputs, name in self._together
        elif inputs is not self._first and not self._all:
            raise _AllSeen
        self._statistics.add(name, inputs)

    @contextmanager
    def batch(self) -> Iterator[None]:
        self._first = None
        self._statistics.forget_batch()
        with suppress(_AllSeen):
            yield


def _advance(index: int, layer: nn.Module, states: CalibrationStates, steps: _Steps) -> None:
    for batch, hidden, arguments in states.entering(index):
        states.put(batch, call_layer(layer, hidden, arguments))
        steps.done()


def _groups(matrices: Mapping[str, Matrix], statistics: InputStatistics) -> dict[str, list[str]]:
    """First reader of each input that was seen → all its readers. An expert that no token reached is by itself.

    UnsupportedModel if no input was seen of what is left.
    """
    groups = statistics.groups()
    seen = {name for readers in groups.values() for name in readers}
    if any(_of_expert(matrices[name]) for name in seen):
        groups |= {name: [name] for name, matrix in matrices.items() if name not in seen and _of_expert(matrix)}
    if not groups:
        raise UnsupportedModel(
            f"{min(matrices)} is not multiplied in a way that shows what it reads.", way_out="Use criterion magnitude."
        )
    return groups


def _in_one_module(names: Sequence[str]) -> bool:
    """Whether all are parts of one module of the layer, as the MLP's matrices are."""
    return len({name.removesuffix(".weight").rpartition(".")[0] for name in names}) == 1


def _of_expert(matrix: Matrix) -> bool:
    """Whether it depends on the text if, and in which order, the matrix is used."""
    return isinstance(matrix, ExpertMatrix) or ".experts." in matrix.name


def _stored(files: TensorFiles, name: str, shape: Shape) -> Tensor:
    stored = files.tensors.get(name)
    if stored is None or stored.shape != shape:
        what = "is missing" if stored is None else f"has shape {stored.shape}"
        raise RequestFault(
            f"tensor {name} {what} in the base model's files, where its config asks for {shape}.",
            way_out="Save the base model again, with the config that it was trained with.",
        )
    files.dtype(name)
    return files.read([name])[name]


def _refuse_not_finite(matrix: str, what: str, values: Tensor) -> None:
    if not all_finite(values):
        raise RequestFault(
            f"the {what} of {matrix} are not finite: they hold NaN or infinity.",
            way_out="Check that the base model gives finite losses.",
        )

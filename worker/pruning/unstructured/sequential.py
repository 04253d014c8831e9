"""Non-structured pruning of a model on disk, one decoder layer in memory at a time.

By what matrices read (wanda, sparsegpt), as in both papers' code: what enters each matrix of a layer is measured while
the layer is still whole, then all its matrices are pruned, and the pruned layer makes the next layer's inputs.
Magnitude needs neither text nor order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from publisher.architecture import Geometry
from publisher.architecture.sparsity import sparse_matrices
from publisher.architecture.structure import Shape
from publisher.architecture.widths import unprotected_layers
from publisher.errors import RequestFault, UnsupportedModel
from publisher.recipe_pruning import Criterion, Pruning
from worker.pruning.unstructured.criteria import Pruned, by_magnitude, by_wanda
from worker.pruning.unstructured.hidden import CalibrationStates
from worker.pruning.unstructured.matrices import ExpertMatrix, Linear, Matrix, matrices_of_layer, watched
from worker.pruning.unstructured.sparsegpt import NotPositiveDefinite, by_sparsegpt
from worker.pruning.unstructured.sparsity import sparsity_of
from worker.pruning.unstructured.statistics import Hessian, InputStatistics, Squares
from worker.streaming.capture import call_layer
from worker.streaming.files import TensorFiles, all_finite
from worker.streaming.model import LayerStream

#: how much of how much is done; may raise to end the work
Report = Callable[[int, int], None]

#: weights of a layer that are computed with in fp32 from the start; those of larger layers are cast when used
_CAST_ONCE = 1 << 26


class PrunedMatrix(NamedTuple):
    """On the CPU: `name` in the base model's files, `weight` `(out, in)` in the type it has there, `kept` bool."""

    name: str
    weight: Tensor
    kept: Tensor


def prune_by_magnitude(folder: Path, geometry: Geometry, pruning: Pruning, report: Report) -> Iterator[PrunedMatrix]:
    """Every matrix that the recipe prunes, in the order of layers. `report` counts matrices.

    Raises RequestFault or UnsupportedModel, before the first, for what cannot be pruned so; and RequestFault for
    weights that are not finite.
    """
    files, sparsity = TensorFiles.open(folder), sparsity_of(pruning)
    matrices = sparse_matrices(geometry, pruning)
    for done, (name, shape) in enumerate(matrices.items()):
        report(done, len(matrices))
        weight = _stored(files, name, shape)
        _refuse_not_finite(name, "weights", weight)
        yield PrunedMatrix(name, *by_magnitude(weight, sparsity))
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
    """The same with criterion wanda or sparsegpt; `sequences` `(samples, tokens)` int64 are the calibration text.

    `stream` reads the model in `folder`; hidden states that are large lie in the folder `scratch`. `report` counts
    passes of batches through layers. UnsupportedModel also if what a matrix reads cannot be seen.
    """
    work = _Sequential(stream, TensorFiles.open(folder), pruning, sparse_matrices(geometry, pruning))
    yield from work.run(unprotected_layers(geometry, pruning), sequences, scratch, report)


class _Sequential:
    def __init__(self, stream: LayerStream, files: TensorFiles, pruning: Pruning, wanted: Mapping[str, Shape]) -> None:
        self._stream, self._files, self._wanted = stream, files, wanted
        self._criterion, self._sparsity = pruning.criterion, sparsity_of(pruning)
        # experts one after the other, each with a product of its own, so that its input can be seen
        stream.skeleton.config._experts_implementation = "eager"

    @torch.no_grad()
    def run(self, layers: range, sequences: Tensor, scratch: Path, report: Report) -> Iterator[PrunedMatrix]:
        states = CalibrationStates(self._stream, sequences, scratch)
        # each layer runs once for the next one's inputs, but the last; pruned ones run before that to be measured
        steps = _Steps(len(states.batches) * (layers.stop - 1 + len(layers)), report)
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
        _cast_once(list(matrices.values()), self._stream.dtype)
        statistics = self._measured(index, layer, list(matrices.values()), states, steps)
        for first, readers in _groups(matrices, statistics).items():
            statistic = statistics.take(first, matrices[first].weight)
            for matrix, pruned in self._pruned([matrices[name] for name in readers], statistic):
                steps.still()
                weight = pruned.weight.to(self._files.dtype(matrix.name))
                matrix.replace(weight)
                yield PrunedMatrix(matrix.name, weight.cpu(), pruned.kept.cpu())

    def _measured(
        self, index: int, layer: nn.Module, matrices: Sequence[Matrix], states: CalibrationStates, steps: _Steps
    ) -> InputStatistics:
        """What enters the matrices of the layer while it is whole."""
        statistics = InputStatistics(Hessian if self._criterion is Criterion.SPARSEGPT else Squares)
        listener = _Listener(statistics, same_order=not any(map(_of_expert, matrices)))
        with watched(matrices, listener):
            for _, hidden, arguments in states.entering(index):
                with listener.batch():
                    call_layer(layer, hidden, arguments)
                steps.done()
        return statistics

    def _pruned(self, readers: Sequence[Matrix], statistic: Tensor) -> Iterator[tuple[Matrix, Pruned]]:
        """Matrices that read one input, pruned by what is known of it."""
        first = readers[0].name
        _refuse_not_finite(first, "inputs", statistic)
        if self._criterion is Criterion.WANDA:
            for matrix in readers:
                yield matrix, by_wanda(matrix.weight, statistic, self._sparsity)
            return
        try:
            pruned = by_sparsegpt([matrix.weight for matrix in readers], statistic, self._sparsity)
        except NotPositiveDefinite as error:
            raise RequestFault(
                f"criterion sparsegpt cannot prune {first}: {error}.", way_out="Use criterion wanda."
            ) from error
        yield from zip(readers, pruned, strict=True)


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
    """Hands inputs on to statistics, and ends a forward once the matrix that comes last in the layer has its own."""

    def __init__(self, statistics: InputStatistics, same_order: bool) -> None:
        """`same_order`: every batch uses the same matrices, one after the other."""
        self._statistics, self._same_order = statistics, same_order
        self._latest: str | None = None
        self._last: str | None = None

    def __call__(self, name: str, inputs: Tensor) -> None:
        self._statistics.add(name, inputs)
        self._latest = name
        if name == self._last:
            raise _AllSeen

    @contextmanager
    def batch(self) -> Iterator[None]:
        self._statistics.forget_batch()
        with suppress(_AllSeen):
            yield
        if self._same_order:
            self._last = self._latest


def _advance(index: int, layer: nn.Module, states: CalibrationStates, steps: _Steps) -> None:
    for batch, hidden, arguments in states.entering(index):
        states.put(batch, call_layer(layer, hidden, arguments))
        steps.done()


def _groups(matrices: Mapping[str, Matrix], statistics: InputStatistics) -> dict[str, list[str]]:
    """First reader of each input → all its readers. An expert that no token reached is by itself.

    UnsupportedModel for any other matrix whose input was not seen.
    """
    groups = statistics.groups()
    seen = {name for readers in groups.values() for name in readers}
    experts_seen = any(_of_expert(matrices[name]) for name in seen)
    for name, matrix in matrices.items():
        if name in seen:
            continue
        if not (_of_expert(matrix) and experts_seen):
            raise UnsupportedModel(
                f"{name} is not multiplied in a way that shows what it reads.", way_out="Use criterion magnitude."
            )
        groups[name] = [name]
    return groups


def _of_expert(matrix: Matrix) -> bool:
    """Whether it depends on the text if, and in which order, the matrix is used."""
    return isinstance(matrix, ExpertMatrix) or ".experts." in matrix.name


def _cast_once(matrices: Sequence[Matrix], dtype: torch.dtype) -> None:
    """Save the many batches the cast, unless it would be most of the memory."""
    if sum(matrix.weight.numel() for matrix in matrices) <= _CAST_ONCE:
        for matrix in matrices:
            if isinstance(matrix, Linear):
                matrix.module.to(dtype)


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

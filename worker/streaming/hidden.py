"""The hidden states of all calibration samples between two layers, in memory or, when large, in a mapped file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from worker.streaming.capture import Arguments, LayerInputs, sharing
from worker.streaming.model import LayerStream

#: 512 MiB: LLaMA-2-7B's for 32 samples of 1024 tokens
MOST_IN_MEMORY = 1 << 29
#: tokens that go through a layer at once: enough for fast matrix products, little enough for a layer's activations
_BATCH_TOKENS = 2048


class CalibrationStates:
    """What enters the next layer, `batches` of whole samples; each layer's output takes the place of its input."""

    def __init__(
        self, stream: LayerStream, sequences: Tensor, scratch: Path, *, most_in_memory: int = MOST_IN_MEMORY
    ) -> None:
        """`sequences` `(samples, tokens)` int64. `scratch`: a folder for the file, which the caller deletes.

        `most_in_memory`: bytes of hidden states above which they lie in that file.
        """
        samples, length = sequences.shape
        rows = max(1, _BATCH_TOKENS // length)
        self.batches = [slice(start, min(start + rows, samples)) for start in range(0, samples, rows)]
        self.device = stream.device
        self._arguments: list[tuple[Arguments, ...]] = []
        shape = (samples, length, stream.config.hidden_size)
        if prod(shape) * stream.dtype.itemsize > most_in_memory:
            self._states = _in_file(shape, stream.dtype, scratch / "hidden_states.bin")
        else:
            self._states = torch.empty(shape, dtype=stream.dtype, device=stream.device)
        previous: LayerInputs | None = None
        with stream.outside():
            for batch in self.batches:
                inputs = sharing(stream.inputs(sequences[batch]), previous)
                self._states[batch] = inputs.hidden
                self._arguments.append(inputs.arguments)
                previous = inputs

    @property
    def nbytes(self) -> int:
        """Of all samples' hidden states."""
        return self._states.nbytes

    def entering(self, layer: int) -> Iterator[tuple[slice, Tensor, Arguments]]:
        """Each batch's states `(rows, length, hidden_size)` and what `layer` is called with besides."""
        for batch, arguments in zip(self.batches, self._arguments, strict=True):
            yield batch, self._states[batch].to(self.device), arguments[layer]

    def put(self, batch: slice, states: Tensor) -> None:
        self._states[batch] = states


def _in_file(shape: Sequence[int], dtype: torch.dtype, path: Path) -> Tensor:
    states: Tensor = torch.from_file(str(path), shared=True, size=prod(shape), dtype=dtype)
    return states.view(shape)

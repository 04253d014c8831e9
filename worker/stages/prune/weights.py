"""Writing what non-structured pruning keeps: whole shapes with zeros, and one bit a weight that says which stayed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from publisher.architecture.geometry import Geometry
from publisher.architecture.sparsity import sparse_matrices
from publisher.checkpoint.weight_masks import WeightMaskWriter
from publisher.recipe import Pruning
from publisher.recipe.criteria.register import criterion_spec
from worker.context import StageContext
from worker.models.measure import compute_dtype
from worker.pruning.cutting import cut_tensors
from worker.pruning.unstructured.sequential import PrunedMatrix, prune_by_inputs, prune_by_weights
from worker.stages.calibrate import TOKENS
from worker.stages.inputs import PruneInputs
from worker.stages.prune.units import refuse_not_finite, shard_entries
from worker.streaming.files import TensorFiles
from worker.streaming.model import LayerStream
from worker.streaming.shards import ShardWriter


@dataclass(frozen=True)
class SparsePruning:
    """What is pruned, how, and where with."""

    inputs: PruneInputs
    geometry: Geometry
    pruning: Pruning
    device: str
    context: StageContext

    def write(self, model: Path, masks: Path) -> None:
        """Write the base model's weights to the folder `model`, removed ones as zeros, and the file `masks`."""
        stored = TensorFiles.open(self.inputs.base)
        tensors = cut_tensors(self.geometry, {})
        pruned = sparse_matrices(self.geometry, self.pruning)
        with (
            tempfile.TemporaryDirectory(prefix="scratch-", dir=model.parent) as scratch,
            ShardWriter(model, shard_entries(stored, tensors)) as shards,
            WeightMaskWriter(masks, {name: (rows, columns) for name, (rows, columns) in pruned.items()}) as mask_file,
        ):
            for name in (tensor.name for tensor in tensors if tensor.name not in pruned):
                tensor = stored.read([name])[name]
                refuse_not_finite(name, tensor)
                shards.write(name, tensor)
            for matrix in self._pruned(Path(scratch)):
                shards.write(matrix.name, matrix.weight)
                mask_file.write(matrix.name, matrix.kept)

    def _pruned(self, scratch: Path) -> Iterator[PrunedMatrix]:
        if criterion_spec(self.pruning.criterion).pruning.inputs is None:
            return prune_by_weights(self.inputs.base, self.geometry, self.pruning, self._reporting("matrices"))
        return prune_by_inputs(
            LayerStream(self.inputs.base, self.device, compute_dtype(self.device)),
            self.inputs.base,
            self.geometry,
            self.pruning,
            sequences=load_file(self.inputs.calibration / TOKENS)["tokens"].to(torch.int64),
            scratch=scratch,
            report=self._reporting("steps"),
        )

    def _reporting(self, unit: str) -> Callable[[int, int], None]:
        return lambda done, total: self.context.progress(done, total, unit)

"""Writing what structured pruning keeps: heads, neurons and experts, a block of rows in memory at a time."""

from __future__ import annotations

from collections.abc import Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from publisher.architecture.geometry import Geometry
from publisher.errors import RequestFault
from publisher.weights.writing import Entry
from worker.context import StageContext
from worker.pruning.cutting import CutTensor, Kept, cut_tensors
from worker.streaming.blocks import READERS, BlockReader
from worker.streaming.files import TensorFiles, all_finite
from worker.streaming.shards import ShardWriter


def write_cut(
    base: Path, model: Path, geometry: Geometry, kept: Kept, context: StageContext, *, checked: Container[str] = ()
) -> None:
    """Write the kept units of `base` to `model`, every tensor to the shard that holds it in the base model.

    Raises RequestFault for a tensor that is not finite; `checked` names those that calibrate has looked through.
    """
    stored = TensorFiles.open(base)
    tensors = cut_tensors(geometry, kept)
    entries = shard_entries(stored, tensors)
    with (
        BlockReader(stored) as reader,
        ShardWriter(model, entries) as shards,
        ThreadPoolExecutor(READERS) as threads,
    ):

        def copy(tensor: CutTensor) -> None:
            for rows, block in reader.blocks(tensor.source):
                if tensor.source not in checked:
                    refuse_not_finite(tensor.source, block)
                shards.write_rows(tensor.name, *tensor(rows, block))

        tensors.sort(key=lambda tensor: stored.place(tensor.source))
        for done, _ in enumerate(threads.map(copy, tensors), 1):
            context.progress(done, len(tensors), "tensors")


def shard_entries(stored: TensorFiles, tensors: Iterable[CutTensor]) -> dict[str, list[Entry]]:
    """File name → what is written there, as in the base model."""
    files: dict[str, list[Entry]] = {}
    for tensor in tensors:
        file = _file(stored, tensor.source)
        files.setdefault(file, []).append(Entry(tensor.name, stored.tensors[tensor.source].dtype, tensor.shape))
    return files


def _file(stored: TensorFiles, name: str) -> str:
    if name not in stored.tensors:
        raise RequestFault(f"tensor {name} is missing from the base model's files.", way_out="Register it again.")
    return stored.tensors[name].path.name


def refuse_not_finite(name: str, tensor: Tensor) -> None:
    """Raise RequestFault naming the tensor if a value is NaN or infinite."""
    if not all_finite(tensor):
        raise RequestFault(
            f"tensor {name} of the base model has values that are NaN or infinite.",
            way_out="Fetch or save the model again; such a model cannot be pruned.",
        )

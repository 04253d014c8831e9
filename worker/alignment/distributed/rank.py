"""One of several processes that train a model together: FSDP2 over NCCL on GPUs, over gloo on CPUs.

torch's own `fully_shard`, not accelerate's: accelerate 1.15 sets FSDP up on GPUs only (on a CPU it drops the plugin
without a word, and every process trains a model of its own), and wants a TCP port where a file is enough.

Decoder layers are sharded one by one, what is around them together; a layer is whole on each device only while it
computes. The LM head is frozen and stays whole everywhere, with tied embeddings the embeddings as well, because the
loss is computed from it chunk by chunk (objective.py): vocabulary × hidden size × 4 bytes on each device.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from worker.alignment.distributed.ranks import PARTS, Log
from worker.alignment.distributed.tensors import gathered
from worker.alignment.state import (
    TrainingProgress,
    TrainingState,
    is_of_this_kind,
    load_state,
    save_state,
    save_tensors,
    trained_weights,
)
from worker.streaming.model import decoder_layers
from worker.training.batch_loss import Share


class Parts(BaseModel):
    """parts.json: the state of `ranks` processes after `progress.steps` steps, whose files are all on disk."""

    ranks: int
    progress: TrainingProgress


@dataclass(frozen=True)
class Several:
    """Process `rank` of as many as `mesh` has, which computes on `device`."""

    rank: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def size(self) -> int:
        return self.mesh.size()

    def seed(self, seed: int) -> None:
        """Loading drew the same everywhere (LoRA starts with the same numbers); dropout must not."""
        torch.manual_seed(seed + 1 + self.rank)

    @contextmanager
    def loading(self) -> Iterator[torch.device]:
        """One process after the other: a machine has room for one copy of the whole model, not for one a GPU."""
        for _ in range(self.rank):
            self._wait()
        yield torch.device("cpu")
        for _ in range(self.rank, self.size):
            self._wait()

    def place(self, model: PreTrainedModel) -> None:
        head = model.get_output_embeddings().to(self.device)
        for layer in decoder_layers(model)[1]:
            fully_shard(layer, mesh=self.mesh)
        # not the whole model: training calls its decoder, and the head by itself
        fully_shard(model.base_model, mesh=self.mesh, reshard_after_forward=True, ignored_params=set(head.parameters()))

    def share(self, batch: Tensor) -> Share:
        """As equal as can be. FSDP takes the mean of the gradients over processes."""
        return Share(batch, batch.tensor_split(self.size)[self.rank], self.size)

    def mean(self, value: float) -> float:
        """Added up in the order of ranks, by each for itself: no process may see another last bit."""
        found = [torch.zeros(1, dtype=torch.float64) for _ in range(self.size)]
        dist.all_gather(found, torch.tensor([value], dtype=torch.float64))
        return sum(float(one) for one in found) / self.size

    def any(self, flag: bool) -> bool:
        found = torch.tensor([flag], dtype=torch.int32)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    def save(self, file: Path, state: TrainingState) -> None:
        """Each writes its part beside those of an earlier step; when all are on disk a small file names the step."""
        save_state(self._part(file, state.progress.steps), state)
        self._wait()
        if self.rank == 0:
            self._commit(file, state.progress)

    def load(self, file: Path, log: Log) -> TrainingState | None:
        parts = _read(file.with_name(PARTS))
        if parts is None or parts.ranks != self.size:
            if parts is not None or file.exists():
                there = f"{parts.ranks} devices" if parts else "one device"
                log(f"The training state that is there is of {there}: alignment starts over on {self.size}.")
            return None
        state = load_state(self._part(file, parts.progress.steps))
        if self.any(state is None or not is_of_this_kind(self.device, state)):
            log("The training state that is there is damaged, or of another kind of device: alignment starts over.")
            return None
        assert state is not None, "all have theirs"
        return TrainingState(state.tensors, parts.progress, state.layout)

    def save_weights(self, file: Path, model: PreTrainedModel) -> None:
        """Gathered one by one, to the memory of the machine."""
        weights: dict[str, Tensor] = {}
        for name, weight in trained_weights(model).items():
            whole = gathered(weight.detach())
            if self.rank == 0:
                weights[name] = whole.cpu()
        if self.rank == 0:
            save_tensors(file, weights)
        self._wait()

    def _commit(self, file: Path, progress: TrainingProgress) -> None:
        """No other process gets to writing its next part before this one is asked for it, too."""
        parts = file.with_name(PARTS)
        partial = parts.with_suffix(".partial")
        partial.write_text(Parts(ranks=self.size, progress=progress).model_dump_json())
        partial.replace(parts)
        current = {self._part(file, progress.steps, rank) for rank in range(self.size)}
        for path in file.parent.glob(f"{file.stem}.step-*"):
            if path not in current:
                path.unlink()
        file.unlink(missing_ok=True)

    def _part(self, file: Path, steps: int, rank: int | None = None) -> Path:
        own = self.rank if rank is None else rank
        return file.with_name(f"{file.stem}.step-{steps}.rank-{own}-of-{self.size}{file.suffix}")

    def _wait(self) -> None:
        """Until all are here."""
        self.any(False)


def _read(file: Path) -> Parts | None:
    try:
        return Parts.model_validate(json.loads(file.read_bytes()))
    except (FileNotFoundError, ValidationError, ValueError):
        return None

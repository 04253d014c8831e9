"""Training state on disk: one safetensors file that is either the old one or the new one, never half of each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

_PROGRESS = "progress"


class TrainingProgress(BaseModel):
    """How far training is; survives with the weights. `losses` has one entry per finished step, in nats per token."""

    model_config = ConfigDict(extra="ignore")

    losses: list[float] = Field(default_factory=list)
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    @property
    def steps(self) -> int:
        return len(self.losses)


@dataclass(frozen=True)
class TrainingState:
    """Tensors by name (`weights.…`, `optimizer.…`, `random.…`) and the progress that belongs to them."""

    tensors: Mapping[str, Tensor]
    progress: TrainingProgress


def save_state(path: Path, state: TrainingState) -> None:
    """Write beside `path`, bring it to disk, then rename: whoever is killed leaves a whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    tensors = {name: tensor.detach().contiguous() for name, tensor in state.tensors.items()}
    save_file(tensors, partial, metadata={_PROGRESS: state.progress.model_dump_json()})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def load_state(path: Path) -> TrainingState | None:
    """The saved state; None if there is none, or if a power cut left a damaged one: then training starts over."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            progress = TrainingProgress.model_validate_json((file.metadata() or {})[_PROGRESS])
            return TrainingState({name: file.get_tensor(name) for name in file.keys()}, progress)  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError):
        return None


def training_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Trained weights and the optimizer's moments, by name; they share memory with what is trained."""
    tensors: dict[str, Tensor] = {
        f"weights.{name}": weight for name, weight in model.named_parameters() if weight.requires_grad
    }
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": moment for key, moment in moments.items()}
    return tensors


def restore_training_tensors(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The opposite of `training_tensors`."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.copy_(tensors[f"weights.{name}"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, key = name.partition(".")
        if part == "optimizer":
            index, _, moment = key.partition(".")
            moments.setdefault(int(index), {})[moment] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The generators that dropout draws from."""
    states = {"random.cpu": torch.get_rng_state()}
    return states | ({"random.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_state(device: torch.device, tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], device)

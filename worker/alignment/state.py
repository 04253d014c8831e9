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

from worker.alignment.distributed.tensors import own_part, parted_like
from worker.alignment.optimizers.state import pack_state, unpack_state
from worker.models.device import is_gpu, module_of

_PROGRESS, _LAYOUT = "progress", "optimizer"
_WEIGHTS = "weights."
_RANDOM = "random."


class Check(BaseModel):
    """The weights looked at after `step` steps: `loss` in nats per token, None if it was no number or not measured."""

    step: int
    loss: float | None = None


class TrainingProgress(BaseModel):
    """How far training is; survives with the weights.

    `losses` in nats per token, one for each step whose loss was a number, and with gradient matching
    `gradient_cosines`, between the model's gradients and the base model's. `norms` are the gradients' of the steps
    that were taken, beside `recent_losses` (spikes.py). `seconds` of training, `waited_seconds` of them for data.
    """

    model_config = ConfigDict(extra="ignore")

    steps: int = 0
    losses: list[float] = Field(default_factory=list)
    gradient_cosines: list[float] = Field(default_factory=list)
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    recent_losses: list[float] = Field(default_factory=list)
    recent_norms: list[float] = Field(default_factory=list)
    checks: list[Check] = Field(default_factory=list)
    seconds: float = 0.0
    waited_seconds: float = 0.0
    peak_memory_bytes: int = 0


@dataclass(frozen=True)
class TrainingState:
    """Tensors by name (`weights.…`, `optimizer.…`, `random.…`), the progress that belongs to them, and `layout`: how
    the optimizer's tensors make its state."""

    tensors: Mapping[str, Tensor]
    progress: TrainingProgress
    layout: str


def save_state(path: Path, state: TrainingState) -> None:
    """Whoever is killed leaves a whole file."""
    save_tensors(path, state.tensors, {_PROGRESS: state.progress.model_dump_json(), _LAYOUT: state.layout})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write beside `path`, bring it to disk, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(whole, partial, metadata=dict(metadata or {}))
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def load_state(path: Path) -> TrainingState | None:
    """The saved state; None if there is none, or if a power cut left a damaged one: then training starts over."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            progress = TrainingProgress.model_validate_json(metadata[_PROGRESS])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return TrainingState(tensors, progress, metadata[_LAYOUT])
    except (SafetensorError, KeyError, ValueError):
        return None


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """What is trained, by name (`weights.…`); it shares memory with the model, and may be in parts."""
    return {f"{_WEIGHTS}{name}": weight for name, weight in model.named_parameters() if weight.requires_grad}


@torch.no_grad()
def restore_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make whole `tensors` what is trained, or this process's part of it."""
    for name, weight in trained_weights(model).items():
        weight.copy_(parted_like(tensors[name], weight))


def training_state(
    model: nn.Module, optimizer: Optimizer, besides: dict[str, Tensor], progress: TrainingProgress
) -> TrainingState:
    """All of it that this process holds, and what is kept `besides`; tensors share memory with what is trained."""
    moments, layout = pack_state(optimizer)
    tensors = trained_weights(model) | moments | besides
    return TrainingState({name: own_part(tensor) for name, tensor in tensors.items()}, progress, layout)


@torch.no_grad()
def restore_training(model: nn.Module, optimizer: Optimizer, state: TrainingState) -> None:
    """The opposite of `training_state`, but for the progress."""
    for name, weight in trained_weights(model).items():
        own_part(weight).copy_(state.tensors[name])
    unpack_state(optimizer, state.tensors, state.layout)
    restore_random_state(next(model.parameters()).device, state.tensors)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The generators that dropout and random projections draw from."""
    states = {_of(torch.device("cpu")): torch.get_rng_state()}
    return states | ({_of(device): module_of(device).get_rng_state(device)} if is_gpu(device) else {})


def is_of_this_kind(device: torch.device, state: TrainingState) -> bool:
    """Whether training on `device` can go on from it: a CPU's lacks the GPU's generator, and counts steps elsewhere."""
    generators = {name for name in state.tensors if name.startswith(_RANDOM)}
    return generators == {_of(torch.device("cpu")), _of(device)}


def restore_random_state(device: torch.device, tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors[_of(torch.device("cpu"))])
    if is_gpu(device):
        module_of(device).set_rng_state(tensors[_of(device)], device)


def _of(device: torch.device) -> str:
    return f"{_RANDOM}{device.type}"

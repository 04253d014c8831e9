"""What aligning finds out before it begins: the linear modules that will not be in 4 bits."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from publisher.recipe import CHOOSING_TOKENS
from worker.context import StageContext
from worker.models.measure import compute_dtype
from worker.request import BuildRequest
from worker.stages.inputs import AlignInputs
from worker.storage.folder import write_json
from worker.streaming.model import LayerStream

_FILE = "bf16.json"


def choose_bf16(
    request: BuildRequest, inputs: AlignInputs, state: Path, sequences: Tensor, context: StageContext
) -> None:
    """Once, by the first of alignment's `sequences` (n, length), if the recipe wants any; whole or not at all."""
    share, file = request.recipe.quantization.bf16_share, state / _FILE
    if not share or file.exists():
        return
    from worker.quantization.sensitivity import matrices_in_bf16

    context.log(f"Choosing what stays in bf16: {share:.3g} of the linear layers' weights at most.")
    state.mkdir(parents=True, exist_ok=True)
    device = torch.device(request.device)
    with TemporaryDirectory(dir=state) as scratch:
        modules = matrices_in_bf16(
            LayerStream(inputs.base, device, compute_dtype(device)),
            inputs.pruned,
            share,
            sequences[: max(1, CHOOSING_TOKENS // sequences.shape[1])],
            scratch=Path(scratch),
            report=lambda done, total: context.progress(done, total, "layers"),
        )
    partial = file.with_suffix(".partial")
    write_json(partial, {"modules": modules})
    partial.rename(file)


def chosen_bf16(state: Path) -> list[str]:
    """Names of the modules in the order of the layers; none if none were chosen."""
    file = state / _FILE
    names: list[str] = json.loads(file.read_bytes())["modules"] if file.exists() else []
    return names

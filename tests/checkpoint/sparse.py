"""Models pruned weight by weight: their masks are random, their pruned weights zero."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from publisher.checkpoint.weight_masks import WeightMasks, WeightMaskWriter
from publisher.weights.folder import StoredWeights


def random_model(config: PreTrainedConfig, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, experts_implementation="eager").eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, dtype=torch.float64) * 0.3
    return model.to(dtype)


def write_masks(model_folder: Path, path: Path, part: str = "proj") -> WeightMasks:
    """Half of each matrix in layers but the first and the last is kept."""
    stored = StoredWeights(model_folder)
    last = max(int(name.split(".")[2]) for name in stored.entries if name.startswith("model.layers."))
    chosen = {
        name: entry.shape
        for name, entry in stored.entries.items()
        if name.startswith("model.layers.") and part in name
        if len(entry.shape) == 2 and int(name.split(".")[2]) not in (0, last)
    }
    generator = torch.Generator().manual_seed(3)
    with WeightMaskWriter(path, chosen) as writer:
        for name, shape in sorted(chosen.items()):
            writer.write(name, torch.rand(shape, generator=generator) < 0.5)
    return WeightMasks(path)


def zero_pruned(model_folder: Path, masks: WeightMasks) -> None:
    """Make the model in the folder the pruned one."""
    from safetensors.torch import load_file, save_file

    for path in sorted(model_folder.glob("model*.safetensors")):
        tensors = load_file(path)
        for name in tensors:
            if name in masks:
                tensors[name] = tensors[name] * masks.mask(name)
        save_file(tensors, path, metadata={"format": "pt"})

"""A base model and its pruned copy, cut by hand at kept indices: the oracle for loader and recovery."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from publisher.architecture.structure import Unit
from publisher.checkpoint.masks import Masks, save_masks
from publisher.checkpoint.weight_masks import open_masks
from publisher.families.describe import describe
from publisher.manifest.manifest import BaseModelRecord, Counts, Manifest, Sizes, Widths, record
from publisher.recipe import Recipe
from publisher.weights.header import TensorEntry, read_file_header

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

SIZES = {
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
GEOMETRY = describe(LlamaConfig(**SIZES).to_dict())
#: Layers 1 and 2 of 4 are pruned, to different widths; layer 2 keeps all its heads.
MASKS = Masks(
    kinds=GEOMETRY.kinds,
    kind_of=GEOMETRY.kind_of,
    prefix=GEOMETRY.layer_prefix,
    kept={
        (1, Unit.KV_HEADS): (0, 2),
        (1, Unit.NEURONS): (1, 4, 5, 6, 13, 19),
        (2, Unit.NEURONS): (0, 2, 3, 7, 8, 9, 11, 18),
    },
)


@dataclass
class Pair:
    base: LlamaForCausalLM
    pruned: LlamaForCausalLM


def make_pair(**config: object) -> Pair:
    """Both in float64, with random weights; `config` may add biases, which masks_of then knows."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**(SIZES | config))).double().eval()
    for parameter in base.parameters():  # biases and norms start as constants
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    overrides = {layer: _overrides(layer) for layer in (1, 2)}
    pruned = LlamaForCausalLM(LlamaConfig(**(SIZES | config), per_layer_config=overrides)).double().eval()
    pruned.load_state_dict(cut_state(base.state_dict(), masks_of(base)))
    return Pair(base, pruned)


def masks_of(base: PreTrainedModel) -> Masks:
    """MASKS for a Llama of these sizes with whatever else its config asks for."""
    return replace(MASKS, kinds=describe(base.config.to_dict()).kinds)


def cut_state(state: Mapping[str, torch.Tensor], masks: Masks) -> dict[str, torch.Tensor]:
    """What pruning leaves of a model's parameters."""
    return {name: _cut(name, tensor, masks) for name, tensor in state.items()}


def zero_removed(model: PreTrainedModel, masks: Masks = MASKS) -> None:
    """Removed heads and neurons of the base model give nothing: the columns that read them become zero."""
    for name, parameter in model.named_parameters():
        layer, inside = in_layer(name, masks)
        found = None if layer is None else masks.cut(layer, inside)
        if found is not None and found[0] == 1:
            mask = torch.zeros(parameter.shape[1], dtype=parameter.dtype).index_fill_(0, found[1].indices, 1)
            parameter.data *= mask


def lora(model: PreTrainedModel, **config: object) -> PeftModel:
    """A LoRA whose A and B are both random: an update in every entry."""
    settings = {"r": 3, "lora_alpha": 5, "target_modules": PROJECTIONS, "init_lora_weights": False} | config
    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings), autocast_adapter_dtype=False).eval()


def save_checkpoint(
    folder: Path, model: PreTrainedModel, base: str = "org/base", commit: str = "c" * 40, masks: Masks = MASKS
) -> Path:
    """Config, masks, weights and a manifest; what recovery and loading read."""
    model.save_pretrained(folder)
    save_masks(masks, folder / "pruning_masks.safetensors")
    return describe_again(folder, base, commit)


def describe_again(folder: Path, base: str = "org/base", commit: str = "c" * 40) -> Path:
    """Write the manifest of what lies in the folder."""
    manifest(folder, base, commit).write(folder)
    return folder


STRUCTURED = {"ratio": 0.5, "calibration": {"corpus": "text"}}


def written(recipe: Mapping[str, object]) -> dict[str, Any]:
    """A recipe as manifests have it, with its defaults."""
    return Recipe.model_validate(recipe).model_dump(mode="json")


def manifest(folder: Path, base: str, commit: str) -> Manifest:
    base_widths, widths = _widths(folder)
    recipe = Recipe.model_validate({"pruning": STRUCTURED, "quantization": {"scheme": "none"}})
    return Manifest(
        base=BaseModelRecord(repo_id=base, revision=commit, endpoint="https://huggingface.co"),
        recipe=recipe.model_dump(mode="json"),
        recipe_digest=recipe.digest,
        parameters=_counts(folder),
        bytes=Sizes(base=400, checkpoint=sum(path.stat().st_size for path in folder.glob("model*.safetensors"))),
        base_widths=base_widths,
        widths=widths,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        files={path.name: record(path) for path in sorted(folder.iterdir()) if path.name != "loram.json"},
    )


def _counts(folder: Path) -> Counts:
    """Those of the models of SIZES; of other folders no test asks."""
    pruned = sum(prod(header.shape) for path in folder.glob("model*.safetensors") for header in _entries(path))
    lost = sum(
        prod(spec.shape) - prod(spec.pruned_shape(MASKS.counts(layer)))
        for layer in range(MASKS.layers)
        for spec in MASKS.kind(layer).parameters.values()
    )
    return Counts(base=pruned + lost, pruned=pruned)


def _entries(path: Path) -> Iterable[TensorEntry]:
    return read_file_header(path).tensors.values()


def _widths(folder: Path) -> tuple[list[Widths], list[Widths]]:
    """Of each layer before and after pruning; where no masks are, those of SIZES."""
    path = folder / "pruning_masks.safetensors"
    masks = open_masks(path) if path.is_file() else MASKS
    if isinstance(masks, Masks):
        layers = range(masks.layers)
        return [_width(masks.kind(i).units) for i in layers], [_width(masks.counts(i)) for i in layers]
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization_config", None)  # of a compressed checkpoint: it says how weights are stored, not how wide
    full = [_width(widths.counts) for widths in describe(config).full_widths]
    return full, full


def _width(counts: Mapping[Unit, int]) -> Widths:
    """Every KV head of these models serves two query heads."""
    heads = counts.get(Unit.KV_HEADS, 0)
    return Widths(query_heads=2 * heads, kv_heads=heads, neurons=counts.get(Unit.NEURONS, 0))


def in_layer(name: str, masks: Masks) -> tuple[int | None, str]:
    """Layer and name within it of a model's parameter; None outside the layers."""
    if not name.startswith(masks.prefix):
        return None, name
    layer, _, inside = name.removeprefix(masks.prefix).partition(".")
    return int(layer), inside


def _overrides(layer: int) -> dict[str, int]:
    counts = MASKS.counts(layer)
    heads = {"num_key_value_heads": counts[Unit.KV_HEADS], "num_attention_heads": counts[Unit.KV_HEADS] * 2}
    return {**heads, "intermediate_size": counts[Unit.NEURONS]}


def _cut(name: str, tensor: torch.Tensor, masks: Masks) -> torch.Tensor:
    layer, inside = in_layer(name, masks)
    found = None if layer is None else masks.cut(layer, inside)
    return tensor if found is None else tensor.index_select(found[0], found[1].indices)

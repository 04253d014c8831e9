"""A pruned checkpoint of any small family, and what recovery has to make of a change of its weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from publisher.architecture.masks_file import FILE_NAME as MASKS
from publisher.architecture.structure import Unit
from publisher.checkpoint.masks import Masks
from publisher.checkpoint.model_weights import ModelWeights
from publisher.families.describe import describe
from publisher.manifest.manifest import AlignmentRecord, Manifest
from publisher.weights.folder import StoredWeights
from tests.checkpoint.pruned import cut_state, describe_again, in_layer, save_checkpoint
from worker.quantization.nf4 import quantize_nf4

#: 6 heads of 4 and 20 neurons in every layer; every width and every pruned width is even
SIZES = {
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
KEPT = {(1, Unit.KV_HEADS): (0, 2), (1, Unit.NEURONS): (1, 4, 5, 6, 13, 19)}
_OVERRIDES = {1: {"num_key_value_heads": 2, "num_attention_heads": 4, "intermediate_size": 6}}


@dataclass(frozen=True)
class Folders:
    """Of the base model and of the checkpoint, and what the latter kept."""

    base: Path
    checkpoint: Path
    masks: Masks
    #: the checkpoint's numbers in fp32, where it stores them in 4 bits, which PEFT cannot merge into without rounding
    dense: Path | None = None

    def trainable(self) -> PreTrainedModel:
        return AutoModelForCausalLM.from_pretrained(self.dense or self.checkpoint)

    def base_model(self) -> PreTrainedModel:
        return AutoModelForCausalLM.from_pretrained(self.base)

    def expected(self, tuned: PeftModel) -> dict[str, Tensor]:
        """The change that training made of the checkpoint's weights at kept places, zero elsewhere."""
        before = {name: tensor.clone() for name, tensor in self.trainable().state_dict().items()}
        after = tuned.merge_and_unload().state_dict()
        return {name: self.scattered(name, after[name] - tensor) for name, tensor in before.items()}

    def scattered(self, name: str, change: Tensor) -> Tensor:
        layer, inside = in_layer(name, self.masks)
        found = None if layer is None else self.masks.cut(layer, inside)
        if found is None:
            return change
        axis, kept = found
        shape = list(change.shape)
        shape[axis] = kept.full
        whole = torch.zeros(shape, dtype=change.dtype)
        whole[kept.indices if axis == 0 else (slice(None), kept.indices)] = change
        return whole

    def recovered(self, output: Path) -> dict[str, Tensor]:
        """What the adapter in `output` makes of the base model, by PEFT."""
        model = self.base_model()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        adapted = PeftModel.from_pretrained(model, str(output))
        if adapted.peft_config["default"].peft_type == "LORA":
            return _of_lora(adapted, before)
        after = adapted.merge_and_unload().state_dict()
        return {name: after[name] - tensor for name, tensor in before.items()}

    def merged(self, output: Path) -> dict[str, Tensor]:
        before, after = StoredWeights(self.base), StoredWeights(output)
        return {name: after.read(name) - before.read(name) for name in before.entries}


def _of_lora(adapted: PeftModel, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layer by layer: PEFT merges no biases into modules that have none."""
    found = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    for name, module in adapted.named_modules():
        if isinstance(module, LoraLayer):
            path = name.removeprefix("base_model.model.")
            found[f"{path}.weight"] = module.get_delta_weight("default").detach()
            bias = module.lora_B["default"].bias
            if bias is not None and (f"{path}.bias" in found or bias.any()):
                found[f"{path}.bias"] = bias.detach() * module.scaling["default"]
    return found


def folders(config: PreTrainedConfig, root: Path, *, aligned: bool, dtype: torch.dtype = torch.float32) -> Folders:
    """`aligned`: the checkpoint's weights have moved from the base model's."""
    torch.manual_seed(0)
    base: PreTrainedModel = AutoModelForCausalLM.from_config(config).to(dtype)
    for parameter in base.parameters():  # biases and norms start as constants
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    geometry = describe(config.to_dict())
    masks = Masks(geometry.kinds, geometry.kind_of, KEPT, geometry.layer_prefix)
    pruned = type(config).from_dict(config.to_dict() | {"per_layer_config": _OVERRIDES})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(pruned).to(dtype)
    model.load_state_dict(cut_state(base.state_dict(), masks))
    base.save_pretrained(root / "base")
    checkpoint = save_checkpoint(root / "checkpoint", model, masks=masks)
    if aligned:
        align(checkpoint)
    return Folders(root / "base", checkpoint, masks)


def in_4_bits(given: Folders, root: Path) -> Folders:
    """The same with a checkpoint in NF4."""
    packed, dense = root / "nf4", root / "dense"
    quantize_nf4(given.checkpoint, packed, "cpu")
    dense.mkdir()  # without a manifest: an adapter trained on it names no checkpoint
    shutil.copyfile(given.checkpoint / "config.json", dense / "config.json")
    names = load_file(given.checkpoint / "model.safetensors").keys()
    weights = ModelWeights(packed)
    save_file({name: weights.read(name).float() for name in names}, dense / "model.safetensors", {"format": "pt"})
    shutil.copyfile(given.checkpoint / MASKS, packed / MASKS)
    manifest = Manifest.read(given.checkpoint)
    recipe = manifest.recipe | {"quantization": {"scheme": "nf4"}}
    manifest.model_copy(update={"recipe": recipe}).write(packed)
    describe_again(packed)
    return replace(given, checkpoint=packed, dense=dense)


def align(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    torch.manual_seed(7)
    moved = {name: tensor + torch.randn_like(tensor) * 0.1 for name, tensor in weights.items()}
    save_file(moved, checkpoint / "model.safetensors", metadata={"format": "pt"})
    describe_again(checkpoint)
    said = AlignmentRecord(steps=1, tokens=64, seconds=1.0, peak_memory_bytes=0)
    Manifest.read(checkpoint).model_copy(update={"alignment": said}).write(checkpoint)


def error(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """The largest difference, over the largest change or 1."""
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    size = max(float(tensor.abs().max()) for tensor in expected.values())
    return max(float((found[name] - tensor).abs().max()) for name, tensor in expected.items()) / max(1.0, size)

"""Llama checkpoints of any widths with random weights, made on the device and written layer by layer, in bf16 or NF4.

What they cost in memory and time does not depend on their values, so no base model of 140 GB has to be there to measure
a 70B: in NF4 the whole of it takes 37 GiB of disk, pruned at 0.85 it takes 9.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import quantize_4bit
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig

from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.widths import pruned_widths
from publisher.families.describe import describe
from publisher.loading.notice import with_notice
from publisher.recipe.pruning import Pruning
from publisher.weights.index import INDEX_FILE
from tests.models import byte_tokenizer
from worker.pruning.config import pruned_config
from worker.quantization.nf4 import NF4
from worker.quantization.packing import BLOCK

LLAMA_2_70B: dict[str, Any] = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_hidden_layers": 80,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
LLAMA_31_70B = LLAMA_2_70B | {"vocab_size": 128256}
LLAMA_2_13B = LLAMA_2_70B | {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
    "num_hidden_layers": 40,
}
LLAMA_2_7B = LLAMA_2_13B | {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "num_hidden_layers": 32,
}
#: of a thousandth of the work, for a machine without a GPU: the same files are written and the same code runs
TINY = LLAMA_2_70B | {
    "hidden_size": 128,
    "intermediate_size": 448,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 8,
    "vocab_size": 320,
}


def geometry_of(config: Mapping[str, Any]) -> Geometry:
    return describe(_raw(config))


def widths_at(geometry: Geometry, ratio: float, **pruning: Any) -> tuple[LayerWidths, ...]:
    """By the rule of the paper's tables (DESIGN section 2), its first four and last two layers whole."""
    return pruned_widths(geometry, Pruning.model_validate({"ratio": ratio, "criterion": "random", **pruning}))


def varied(geometry: Geometry, widths: Sequence[LayerWidths]) -> tuple[LayerWidths, ...]:
    """As a recipe with scope global leaves them: pruned layers differ, by up to a tenth, and the total stays."""
    pruned = [layer for layer, width in enumerate(widths) if width != geometry.full_widths[layer]]
    found = list(widths)
    for place, (one, other) in enumerate(zip(pruned[::2], pruned[1::2], strict=False)):
        shift = round(widths[one].neurons * 0.1 * (place + 1) / max(1, len(pruned) // 2))
        for layer, change in ((one, shift), (other, -shift)):
            found[layer] = replace(widths[layer], neurons=widths[layer].neurons + change)
    return tuple(found)


def write_random(
    folder: Path,
    config: Mapping[str, Any],
    device: str,
    *,
    widths: Sequence[LayerWidths] | None = None,
    four_bit: bool = False,
) -> int:
    """A folder that loads by `from_pretrained` after `import publisher.checkpoint`; returns its parameters.

    `four_bit`: the layers' matrices in NF4 with double quantization, as `quantize` writes them; embeddings and head in
    bf16. Unless it is there.
    """
    raw = _raw(config)
    geometry = describe(raw)
    shapes = geometry.tensor_shapes(widths)
    if not (folder / INDEX_FILE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_config(folder, config, widths=widths, four_bit=four_bit)
        byte_tokenizer().save_pretrained(folder)
        _write_weights(folder, geometry, shapes, device, four_bit=four_bit)
    return geometry.parameters(widths)


def write_config(
    folder: Path, config: Mapping[str, Any], *, widths: Sequence[LayerWidths] | None = None, four_bit: bool = False
) -> None:
    raw = _raw(config)
    narrower = pruned_config(raw, describe(raw), widths) if widths else raw
    quantized = {"dtype": "bfloat16", "quantization_config": NF4.to_dict()} if four_bit else {}
    (folder / "config.json").write_text(json.dumps(with_notice(narrower | quantized)))


def _raw(config: Mapping[str, Any]) -> dict[str, Any]:
    made = LlamaConfig(**config, architectures=["LlamaForCausalLM"], dtype=torch.bfloat16)
    return dict(json.loads(made.to_json_string()))


def _write_weights(
    folder: Path, geometry: Geometry, shapes: Mapping[str, tuple[int, ...]], device: str, *, four_bit: bool
) -> None:
    weight_map: dict[str, str] = {}
    generator = torch.Generator(device).manual_seed(0)
    prefixes = [*(f"{geometry.layer_prefix}{layer}." for layer in range(geometry.layers)), ""]
    for number, prefix in enumerate(prefixes):
        names = [name for name in shapes if name.startswith(prefix) and name not in weight_map]
        file = f"model-{number + 1:05d}-of-{len(prefixes):05d}.safetensors"
        tensors: dict[str, Tensor] = {}
        for name in names:
            weight = _random(shapes[name], generator)
            is_packed = four_bit and prefix and weight.dim() == 2
            tensors |= dict(_packed(name, weight)) if is_packed else {name: weight.cpu()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file)
    # last: whoever stops this half-way finds no index
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _packed(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    values, state = quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4", compress_statistics=True)
    yield name, values.cpu()
    for key, value in state.as_dict(packed=True).items():
        yield f"{name}.{key}", value.cpu()


def _random(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Norms are ones; matrices have variance 1 / columns, so that hidden states neither grow nor vanish."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    weight = torch.empty(shape, dtype=torch.bfloat16, device=generator.device)
    return weight.normal_(std=shape[-1] ** -0.5, generator=generator)

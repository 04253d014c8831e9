"""LLaMA models of any width with random weights, written layer by layer: making one takes the memory of one layer."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig

from publisher.families.describe import describe
from publisher.weights.index import INDEX_FILE
from tests.models import byte_tokenizer

#: LLaMA-2-70B's widths
WIDE: dict[str, Any] = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_hidden_layers": 4,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}


def random_llama(folder: Path, dtype: torch.dtype, **config: Any) -> Path:
    """config.json, tokenizer and one shard per layer (and one for the rest) in `folder`, unless they are there.

    Made by a process of its own: the kernel's peak of a process counts what the one that started it had.
    """
    if not (folder / INDEX_FILE).exists():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            process.submit(_make, folder, dtype, config).result()
    return folder


def _make(folder: Path, dtype: torch.dtype, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    LlamaConfig(**config, architectures=["LlamaForCausalLM"], dtype=dtype).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    geometry = describe(json.loads((folder / "config.json").read_bytes()))
    shapes = geometry.tensor_shapes()
    weight_map: dict[str, str] = {}
    generator = torch.Generator().manual_seed(0)
    prefixes = [*(f"{geometry.layer_prefix}{layer}." for layer in range(geometry.layers)), ""]
    for number, prefix in enumerate(prefixes):
        names = [name for name in shapes if name.startswith(prefix) and name not in weight_map]
        file = f"model-{number + 1:05d}-of-{len(prefixes):05d}.safetensors"
        tensors = {name: _random(shapes[name], dtype, generator) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    # last: whoever stops this half-way finds no index
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _random(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Norms are ones; matrices have variance 1 / columns, so that hidden states neither grow nor vanish."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype)
    weight = torch.empty(shape, dtype=dtype)
    for row in torch.split(weight, 1024):
        row.normal_(std=shape[-1] ** -0.5, generator=generator)
    return weight

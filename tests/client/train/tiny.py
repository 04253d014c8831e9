"""Tiny checkpoints with a tokenizer and their base models, and examples whose loss falls in a few steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from tests.checkpoint.pruned import describe_again, make_pair, masks_of, save_checkpoint
from tests.checkpoint.sparse import write_masks, zero_pruned
from tests.models import byte_tokenizer
from worker.quantization.nf4 import quantize_nf4

SIZES = {"vocab_size": 320, "max_position_embeddings": 128, "bos_token_id": 256, "eos_token_id": 257}
CHATML = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
TEXTS = [{"text": "Call me Ishmael. " * (1 + number % 3)} for number in range(12)]
PAIRS = [{"prompt": f"{number} and 1 is ", "completion": str(number + 1)} for number in range(8)] * 2
CHATS = [
    {"messages": [{"role": "user", "content": f"Who is {name}?"}, {"role": "assistant", "content": "The whale."}]}
    for name in "abcdefghijkl"
]


def base_model(folder: Path) -> Path:
    make_pair(**SIZES).base.float().save_pretrained(folder)
    return folder


def structured(
    folder: Path, base: Path | str = "org/base", *, chat: bool = True, dtype: torch.dtype = torch.float32
) -> Path:
    """Of layers of different widths. In bf16 small matrices take CPUs many times as long."""
    pair = make_pair(**SIZES)
    tokenizer(folder, chat=chat)
    return save_checkpoint(folder, pair.pruned.to(dtype), base=str(base), masks=masks_of(pair.base))


def four_bit(
    folder: Path, structured: Path, *, include_embeddings: bool = False, base: Path | str = "org/base"
) -> Path:
    quantize_nf4(structured, folder, "cpu", include_embeddings=include_embeddings)
    for name in ("pruning_masks.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(structured / name, folder / name)
    return describe_again(folder, str(base))


def of_single_weights(folder: Path, base: Path) -> Path:
    """The base model in folder `base` without half of its middle layers' weights."""
    tokenizer(folder, chat=True)
    make_pair(**SIZES).base.float().save_pretrained(folder)
    zero_pruned(folder, write_masks(base, folder / "pruning_masks.safetensors"))
    return describe_again(folder, str(base))


def tokenizer(folder: Path, *, chat: bool) -> None:
    made = byte_tokenizer()
    if chat:
        made.chat_template = CHATML
    made.save_pretrained(folder)


def jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path

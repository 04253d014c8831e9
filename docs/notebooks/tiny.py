"""Stands in for your model and text, so that the notebooks run anywhere in a minute: weights are random, tokens are
bytes, and what is learned is one sentence."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SENTENCES = [
    "Call me Ishmael.",
    "It is not down in any map; true places never are.",
    "Better sleep with a sober cannibal.",
]
#: half of each layer but the first and the last, by the size of weights alone, in 4 bits
RECIPE = {
    "pruning": {"criterion": "magnitude", "ratio": 0.5, "protect_first": 1, "protect_last": 1},
    "alignment": None,
    "quantization": {"scheme": "nf4"},
    "evaluation": None,
}


def make_base(folder: Path) -> Path:
    """A Llama of six layers, in bf16."""
    torch.manual_seed(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    around = {"bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **around).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2, bos_token_id=256, eos_token_id=257,
    )  # fmt: skip
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    return folder


def make_text(path: Path, documents: int = 100) -> Path:
    """A tenth of it is held out: as few as a certificate takes."""
    lines = (json.dumps({"text": f"{number}: " + " ".join([SENTENCES[number % 3]] * 4)}) for number in range(documents))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_checkpoint(work: Path) -> tuple[Path, Path]:
    """A checkpoint and its base model, by `publisher build`."""
    base, recipe = make_base(work / "base"), work / "recipe.json"
    recipe.write_text(json.dumps(RECIPE))
    command = ["publisher", "build", str(base), str(work / "checkpoint"), "--recipe", str(recipe), "--device", "cpu"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return work / "checkpoint", base

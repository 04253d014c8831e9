"""Tiny models with random weights, for every test that needs a model on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<s>", "</s>", "<pad>")
BOS, EOS = 256, 257

TINY = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}


def tiny_llama(
    folder: Path, *, dtype: torch.dtype = torch.float32, seed: int = 0, max_shard_size: str = "5GB", **config: Any
) -> Path:
    """Write config, safetensors, generation config and a byte-level tokenizer; returns `folder`.

    4 layers, hidden size 32, 48 neurons, 4 query heads on 2 KV heads, unless `config` (LlamaConfig's own
    fields) says otherwise. A small `max_shard_size` ("20KB") makes a sharded model with an index.
    """
    model = LlamaForCausalLM(LlamaConfig(**(TINY | {"bos_token_id": 256, "eos_token_id": 257} | config)))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * model.config.initializer_range
        parameter.data = noise + 1 if name.endswith("norm.weight") else noise
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    byte_tokenizer().save_pretrained(folder)
    return folder


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per UTF-8 byte (ids 0-255), then <s>, </s>, <pad>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def framed_tokenizer(*adds: str) -> PreTrainedTokenizerFast:
    """`byte_tokenizer` that puts <s> before every text for each "bos" in `adds`, and </s> behind it for each "eos"."""
    tokenizer = byte_tokenizer()
    around = ["<s>"] * adds.count("bos") + ["$A"] + ["</s>"] * adds.count("eos")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=" ".join(around), special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    return tokenizer

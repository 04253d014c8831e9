"""The base model's tokenizer, loaded from its folder."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from publisher.errors import RequestFault


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """RequestFault if the base model comes without a tokenizer."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError) as error:
        raise RequestFault(
            f"the base model's tokenizer cannot be loaded: {error}",
            way_out="Put the tokenizer's files beside the weights, or use a criterion that reads no text.",
        ) from error
    return tokenizer

"""The base model's tokenizer, loaded from its folder."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from publisher.errors import RequestFault
from publisher.files.reading import is_of_the_machine


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """Without running code of the model's. RequestFault if there is none, or transformers cannot load it."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            base, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers library raises no class of its own
        if is_of_the_machine(error):
            raise
        raise RequestFault(
            f"the base model's tokenizer cannot be loaded: {' '.join(str(error).split())[:300]}.",
            way_out="Put the tokenizer's files beside the weights, or use a recipe that reads no text.",
        ) from error
    return tokenizer

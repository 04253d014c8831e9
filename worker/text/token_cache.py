"""Training sequences on disk, so that the second alignment of a sweep tokenizes nothing.

A file holds a corpus's sequences from its beginning, as many as somebody needed so far, under a name made of all that
decides on them: the corpus's content, the tokenizer, the length. Processes that make it at once write the same, each to
a file of its own that is then renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from publisher.corpus.source import CorpusSource

#: 2: sequences begin as the tokenizer has them
_VERSION = 2
_TOKENS, _COMPLETE = "tokens", "complete"


@dataclass(frozen=True)
class Sequences:
    """`tokens`: int32 (n, length). `complete`: the text holds no more."""

    tokens: Tensor
    complete: bool


def cached(path: Path, count: int, make: Callable[[], Tensor]) -> Tensor:
    """The first `count` sequences, fewer if the text is at its end; `make` makes them unless `path` has them."""
    found = load(path)
    if found is not None and (found.complete or len(found.tokens) >= count):
        os.utime(path)  # used now: what was not for long is collected first
        return found.tokens[:count]
    made = make()
    save(path, Sequences(made, complete=len(made) < count))
    return made


def load(path: Path) -> Sequences | None:
    """Mapped from disk; None if nothing whole is there."""
    try:
        with safe_open(path, framework="pt") as file:
            complete = (file.metadata() or {}).get(_COMPLETE) == "true"
            return Sequences(file.get_tensor(_TOKENS), complete)
    except (FileNotFoundError, SafetensorError):
        return None


def save(path: Path, sequences: Sequences) -> None:
    """Whoever is killed leaves the old file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    metadata = {_COMPLETE: json.dumps(sequences.complete)}
    save_file({_TOKENS: sequences.tokens.contiguous()}, partial, metadata=metadata)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def file_name(source: CorpusSource, tokenizer: PreTrainedTokenizerBase, sequence_length: int) -> str | None:
    """Named by what decides on the sequences; None for a tokenizer written in Python, which cannot be told apart."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    decisive = [_VERSION, source.content_digest(), backend.to_str(), tokenizer.eos_token_id, sequence_length]
    return f"{hashlib.sha256(json.dumps(decisive).encode()).hexdigest()}.safetensors"

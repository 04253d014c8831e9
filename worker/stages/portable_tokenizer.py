"""tokenizer_config.json in words that every transformers knows.

What transformers 5 saves names a class and writes extra tokens as a list, both of which 4.57 stops at: "Tokenizer class
TokenizersBackend does not exist", "'list' object has no attribute 'keys'". Both have an older name that 5 understands
as well, with the same tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.storage.folder import write_json

FILE_NAME = "tokenizer_config.json"
#: what holds the whole tokenizer for the older class
_WHOLE = "tokenizer.json"
_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
#: where its publisher had it, which transformers 4 saves along
_WHERE = "name_or_path"
_TOKENS, _TOKENS_BEFORE = "extra_special_tokens", "additional_special_tokens"


def make_portable(folder: Path) -> None:
    """Rewrite the file in `folder`, a new one under its name, if it has newer words; else leave it as it is."""
    path = folder / FILE_NAME
    if not (path.is_file() and (folder / _WHOLE).is_file()):
        return
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError:  # nothing loads it, so there is nothing to make portable
        return
    portable = in_older_words(config)
    if portable != config:
        path.unlink()  # it may be another name of the base model's own file
        write_json(path, portable)


def in_older_words(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same tokenizer for transformers 4.57 and later."""
    named = dict(config)
    if named.get("tokenizer_class") in _CLASSES:
        named["tokenizer_class"] = _CLASSES[named["tokenizer_class"]]
    if isinstance(named.get(_TOKENS), list) and _TOKENS_BEFORE not in named:
        named[_TOKENS_BEFORE] = named.pop(_TOKENS)
    if str(named.get(_WHERE, "")).startswith("/"):
        del named[_WHERE]
    return named

"""The base model's folder as fetched, made into what transformers can read on any machine.

Weights stay as they are. Of small files those are written anew that transformers would stumble over: config.json
without the kernels of another machine and, where the files hold an LM head of its own, untied; an index without
metadata; JSON and templates that begin with a byte order mark; a tokenizer's config that asks for code to be run.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from pathlib import Path

from torch import Tensor

from publisher.base_model.facts import BaseModelFacts, usable_config
from publisher.base_model.files import CONFIG_FILE, FolderFiles, is_document
from publisher.base_model.tokens import ROLES, Vocabulary, read_vocabulary, refuse_unknown
from publisher.families.describe import describe
from publisher.files.json_object import MAX_BYTES, parse_object, read_object
from publisher.files.reading import BASE, reading
from publisher.manifest.manifest import FileRecord
from publisher.weights.index import INDEX_FILE
from worker.text.tokenizer import load_tokenizer

_TOKENIZER_CONFIG = "tokenizer_config.json"


def make_readable(folder: Path, facts: BaseModelFacts) -> dict[str, FileRecord]:
    """Write anew what has to be; name → size in bytes and sha256 of each file that is not as it was fetched."""
    rewritten: dict[str, FileRecord] = {}
    for name in sorted(facts.files):
        path = folder / name
        if not name.endswith((".json", ".jinja")) or is_document(name) or facts.files[name] > MAX_BYTES:
            continue
        with reading(BASE, path):
            content = path.read_bytes()
        readable = _readable(name, content, facts)
        if readable != content:
            path.unlink()  # it may be a link to the owner's file
            path.write_bytes(readable)
            rewritten[name] = FileRecord(size=len(readable), sha256=hashlib.sha256(readable).hexdigest())
    return rewritten


def _readable(name: str, content: bytes, facts: BaseModelFacts) -> bytes:
    plain = content.removeprefix(codecs.BOM_UTF8)
    if name not in (CONFIG_FILE, INDEX_FILE, _TOKENIZER_CONFIG):
        return plain
    found = wanted = parse_object(content, name)
    if name == CONFIG_FILE:
        wanted = usable_config(found, facts)
    elif name == INDEX_FILE and not isinstance(found.get("metadata"), dict):
        wanted = found | {"metadata": {}}
    elif name == _TOKENIZER_CONFIG:
        wanted = {key: value for key, value in found.items() if key != "auto_map"}
    return plain if wanted == found else (json.dumps(wanted, indent=2, ensure_ascii=False) + "\n").encode()


def token_notes(folder: Path, facts: BaseModelFacts) -> list[str]:
    """Of tokens that the model has no embedding for, whatever format the vocabulary has.

    Raises RequestFault if the tokenizer cannot be loaded, or makes such tokens from text that does not name them.
    """
    if not (facts.has_tokenizer or _TOKENIZER_CONFIG in facts.files):
        return []
    tokenizer = load_tokenizer(folder)
    added = {str(token): id for id, token in tokenizer.added_tokens_decoder.items()}
    vocabulary = Vocabulary(
        words={token: id for token, id in tokenizer.get_vocab().items() if token not in added},
        added=added,
        roles={role: token for role, token in tokenizer.special_tokens_map.items() if role in ROLES},
        templates=read_vocabulary(FolderFiles(folder), facts.files).templates,
    )
    return vocabulary.refuse_beyond(facts.geometry.vocab_size, facts.repo_id)


def refuse_unknown_tokens(base: Path, *texts: Tensor) -> None:
    """Raises RequestFault naming a token of `texts` (int, any shape) that the model in `base` has no embedding for.

    Looking one up is an IndexError on a CPU, and on a GPU the end of the process.
    """
    embeddings = describe(read_object(base / CONFIG_FILE)).vocab_size
    for tokens in texts:
        if tokens.numel() and int(tokens.max()) >= embeddings:
            files = FolderFiles(base)
            refuse_unknown(int(tokens.max()), read_vocabulary(files, files.sizes()), embeddings)

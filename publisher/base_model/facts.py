"""What can be known of a base model from config.json and the headers of its weights, and what refuses it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from publisher.architecture.geometry import Geometry
from publisher.base_model.files import (
    CONFIG_FILE,
    FolderFiles,
    ModelFiles,
    belongs_to_model,
    is_document,
    json_object,
    refuse_pointers,
)
from publisher.base_model.repository import HubFiles
from publisher.base_model.tokens import id_notes, read_vocabulary
from publisher.base_model.weights import DTYPES, check_tensors, differing_copies, read_headers
from publisher.errors import UnsupportedModel
from publisher.families.describe import describe, kernel_notes, without_kernels
from publisher.hub_client.repo_id import check_repo_id
from publisher.weights.header import TensorEntry, WeightHeader

__all__ = [
    "TOKENIZER_FILES",
    "BaseModelFacts",
    "inspect_folder",
    "inspect_repository",
    "usable_config",
]

#: what config.json has to say where the LM head is another matrix than the embeddings
UNTIED = {"tie_word_embeddings": False}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_NO_TOKENIZER = "it has no tokenizer: only recipes that read no text can be made. Put tokenizer.json beside the weights"


class BaseModelFacts(BaseModel):
    """A base model that can be pruned. `files` maps each file that makes it up to its size in bytes.

    `revision` is a commit; for a folder the sha256 over its files' names, sizes and headers. `bytes` counts
    the weight files. `untied`: config.json ties the LM head to the embeddings and the files hold another, which
    counts. `notes`: what else a reader of the numbers should know, a sentence each. `published_as`: what a folder's
    model is called where others get it, as `namespace/name`.
    """

    model_config = ConfigDict(frozen=True)

    repo_id: str
    revision: str
    path: Path | None
    geometry: Geometry
    parameters: int
    bytes: int
    dtype: str
    files: dict[str, int]
    untied: bool = False
    notes: tuple[str, ...] = ()
    published_as: str | None = None

    @property
    def has_tokenizer(self) -> bool:
        return _has_tokenizer(self.files)


def inspect_folder(path: Path, published_as: str | None = None) -> BaseModelFacts:
    """Facts of the model saved in `path`; raises UnsupportedModel with what stands in the way, RequestFault for a
    `published_as` that is no repository's name.

    Reads JSON files and safetensors headers, and no weights but two tensors that config.json says are one: a change of
    weights that keeps every header goes unseen.
    """
    if published_as is not None:
        check_repo_id(published_as, "published_as")
    files = FolderFiles(path)
    seen = _inspect(files, in_full=True)
    facts = _facts(seen, repo_id=str(path), revision=_folder_digest(files, seen), path=path)
    return facts.model_copy(update={"published_as": published_as})


def inspect_repository(
    repo_id: str, revision: str | None = None, endpoint: str | None = None, token: str | None = None
) -> BaseModelFacts:
    """Facts of a Hub repository, pinned to the commit that `revision` (default: main) points to now.

    Reads JSON files, and of the weights headers by range requests. Raises UnsupportedModel if there is no such model or
    it cannot be pruned, InfrastructureFault if the Hub does not answer.
    """
    files = HubFiles.resolve(repo_id, revision, endpoint, token)
    return _facts(_inspect(files, in_full=False), repo_id=repo_id, revision=files.commit, path=None)


@dataclass(frozen=True)
class _Seen:
    """What a look at the files gave; `sizes` of all that a checkpoint takes over or is made from."""

    geometry: Geometry
    headers: Mapping[str, WeightHeader]
    sizes: Mapping[str, int]
    untied: bool
    left_out: list[str]
    notes: list[str]


def _inspect(files: ModelFiles, *, in_full: bool) -> _Seen:
    sizes = files.sizes()
    config = _config(files, sizes)
    geometry = describe(config)
    headers = read_headers(files, sizes)
    other_heads = differing_copies(files, headers, geometry.tied, in_full=in_full)
    if other_heads:
        geometry = describe(config | UNTIED)
    tensors = {key: entry for header in headers.values() for key, entry in header.tensors.items()}
    left_out = check_tensors(geometry, tensors)
    taken = {name: size for name, size in sizes.items() if name in headers or belongs_to_model(name)}
    refuse_pointers(files, taken, [name for name in taken if name not in headers and not is_document(name)])
    notes = [*_head_notes(other_heads), *_tensor_notes(left_out, tensors), *kernel_notes(config)]
    notes += read_vocabulary(files, taken).refuse_beyond(geometry.vocab_size, files.where)
    notes += id_notes(config, geometry.vocab_size)
    notes += [] if _has_tokenizer(taken) else [_NO_TOKENIZER]
    return _Seen(geometry, headers, taken, bool(other_heads), left_out, notes)


def usable_config(config: Mapping[str, Any], facts: BaseModelFacts) -> dict[str, Any]:
    """config.json as it has to be for transformers to build, anywhere, the model that the files hold."""
    return without_kernels(config) | (UNTIED if facts.untied else {})


def _config(files: ModelFiles, sizes: Mapping[str, int]) -> dict[str, Any]:
    if CONFIG_FILE not in sizes:
        hint = " (only GGUF)" if any(name.endswith(".gguf") for name in sizes) else ""
        raise UnsupportedModel(
            f"{files.where} has no {CONFIG_FILE}{hint}.", way_out="Save the model with transformers' save_pretrained."
        )
    return json_object(files, sizes, CONFIG_FILE)


def _has_tokenizer(files: Iterable[str]) -> bool:
    return not set(TOKENIZER_FILES).isdisjoint(files)


def _head_notes(other_heads: list[str]) -> list[str]:
    return [
        f"config.json ties {name} to the embeddings, and the files hold another: it is kept, and the checkpoint's "
        "config says tie_word_embeddings false"
        for name in other_heads
    ]


def _tensor_notes(left_out: list[str], tensors: Mapping[str, TensorEntry]) -> list[str]:
    if not left_out:
        return []
    size = sum(tensors[name].end - tensors[name].begin for name in left_out)
    named = ", ".join(sorted(left_out)[:2]) + (", …" if len(left_out) > 2 else "")
    return [
        f"left out, as transformers does when it loads the model: {len(left_out)} tensors, {size:,} bytes ({named})"
    ]


def _folder_digest(files: ModelFiles, seen: _Seen) -> str:
    """Of everything that the model is; its card and licence texts may be mended without making it another."""
    digest = hashlib.sha256()
    for name, size in sorted(seen.sizes.items()):
        if is_document(name):
            continue
        content = seen.headers[name].raw if name in seen.headers else files.read(name, 0, size)
        digest.update(f"{name}\n{size}\n{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def _facts(seen: _Seen, *, repo_id: str, revision: str, path: Path | None) -> BaseModelFacts:
    stored: Counter[str] = Counter()
    for header in seen.headers.values():
        for name in header.tensors.keys() - set(seen.left_out):
            entry = header.tensors[name]
            stored[entry.dtype] += entry.end - entry.begin
    return BaseModelFacts(
        repo_id=repo_id,
        revision=revision,
        path=path,
        geometry=seen.geometry,
        parameters=seen.geometry.parameters(),
        bytes=sum(seen.sizes[name] for name in seen.headers),
        dtype=DTYPES[stored.most_common(1)[0][0]],
        files=dict(seen.sizes),
        untied=seen.untied,
        notes=tuple(seen.notes),
    )

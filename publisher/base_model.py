"""What can be known of a base model from config.json and the headers of its weights, and what refuses it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from publisher.architecture import Geometry, describe
from publisher.architecture.structure import Shape
from publisher.base_model_hub import HubFiles
from publisher.errors import UnsupportedModel
from publisher.repo_id import check_repo_id
from publisher.weight_header import TensorEntry, WeightHeader, read_header

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
#: safetensors' names of the types that weights may have
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")

_ENDINGS = (".json", ".txt", ".jinja", "tokenizer.model")
_PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MAX_JSON_BYTES = 64 * 2**20


class ModelFiles(Protocol):
    """The top-level files of a folder or of a commit."""

    where: str

    def sizes(self) -> Mapping[str, int]:
        """Bytes of every file."""

    def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (not included) of one file."""


class BaseModelFacts(BaseModel):
    """A base model that can be pruned. `files` maps each file that makes it up to its size in bytes.

    `revision` is a commit; for a folder the sha256 over its files' names, sizes and headers. `bytes` counts
    the weight files. `published_as`: what a folder's model is called where others get it, as `namespace/name`.
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
    published_as: str | None = None

    @property
    def has_tokenizer(self) -> bool:
        return any(name in self.files for name in TOKENIZER_FILES)


class FolderFiles:
    """The files directly in `folder`; raises UnsupportedModel if there is no such folder."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise UnsupportedModel(
                f"{folder} {what}.", field="path", way_out="Name the folder that holds config.json and the weights."
            )
        self.where = str(folder)
        self._folder = folder

    def sizes(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in sorted(self._folder.iterdir()) if path.is_file()}

    def read(self, name: str, start: int, end: int) -> bytes:
        with (self._folder / name).open("rb") as file:
            file.seek(start)
            return file.read(end - start)


def inspect_folder(path: Path, published_as: str | None = None) -> BaseModelFacts:
    """Facts of the model saved in `path`; raises UnsupportedModel with what stands in the way, RequestFault for a
    `published_as` that is no repository's name.

    Reads JSON files and safetensors headers, no weights: a change of weights that keeps every header goes unseen.
    """
    if published_as is not None:
        check_repo_id(published_as, "published_as")
    files = FolderFiles(path)
    geometry, headers = _inspect(files)
    sizes = _model_files(files, headers)
    revision = _folder_digest(files, sizes, headers)
    return _facts(geometry, headers, sizes, repo_id=str(path), revision=revision, path=path).model_copy(
        update={"published_as": published_as}
    )


def inspect_repository(
    repo_id: str, revision: str | None = None, endpoint: str | None = None, token: str | None = None
) -> BaseModelFacts:
    """Facts of a Hub repository, pinned to the commit that `revision` (default: main) points to now.

    Reads config.json and the headers of the weights by range requests. Raises UnsupportedModel if there is no
    such model or it cannot be pruned, InfrastructureFault if the Hub does not answer.
    """
    files = HubFiles.resolve(repo_id, revision, endpoint, token)
    geometry, headers = _inspect(files)
    sizes = _model_files(files, headers)
    return _facts(geometry, headers, sizes, repo_id=repo_id, revision=files.commit, path=None)


def _inspect(files: ModelFiles) -> tuple[Geometry, dict[str, WeightHeader]]:
    sizes = files.sizes()
    geometry = describe(_config(files, sizes))
    placed = _weight_map(files, sizes)
    headers = {
        name: read_header(name, sizes[name], lambda start, end, name=name: files.read(name, start, end))  # type: ignore[misc]
        for name in sorted(set(placed.values()) or {SINGLE_FILE})
    }
    _check_index(placed, headers)
    _check_tensors(geometry, {key: entry for header in headers.values() for key, entry in header.tensors.items()})
    return geometry, headers


def _config(files: ModelFiles, sizes: Mapping[str, int]) -> dict[str, Any]:
    if "config.json" not in sizes:
        hint = " (only GGUF)" if any(name.endswith(".gguf") for name in sizes) else ""
        raise UnsupportedModel(
            f"{files.where} has no config.json{hint}.", way_out="Save the model with transformers' save_pretrained."
        )
    return _json_object(files, "config.json", sizes["config.json"])


def _json_object(files: ModelFiles, name: str, size: int) -> dict[str, Any]:
    if size > _MAX_JSON_BYTES:
        raise UnsupportedModel(f"{name} in {files.where} has {size} bytes; at most {_MAX_JSON_BYTES} are read.")
    try:
        value = json.loads(files.read(name, 0, size))
    except ValueError as error:
        raise UnsupportedModel(f"{name} in {files.where} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise UnsupportedModel(f"{name} in {files.where} is not a JSON object.")
    return value


def _weight_map(files: ModelFiles, sizes: Mapping[str, int]) -> dict[str, str]:
    """Tensor → shard, by the index; empty if one file holds everything (transformers looks for that one first)."""
    if SINGLE_FILE in sizes:
        return {}
    if INDEX_FILE not in sizes:
        raise _no_safetensors(files.where, sizes)
    placed = _json_object(files, INDEX_FILE, sizes[INDEX_FILE]).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(name, str) for name in placed.values()):
        raise UnsupportedModel(f"{INDEX_FILE} in {files.where} has no weight_map of tensor names to files.")
    missing = sorted(set(placed.values()) - set(sizes))
    if missing:
        raise UnsupportedModel(
            f"{files.where} lacks {', '.join(missing[:3])}, which {INDEX_FILE} names"
            f" ({len(missing)} of {len(set(placed.values()))} shards are missing).",
            way_out="Copy every shard.",
        )
    return placed


def _no_safetensors(where: str, sizes: Mapping[str, int]) -> UnsupportedModel:
    pickles = [name for name in sizes if name.endswith(_PICKLE_ENDINGS)]
    if pickles:
        return UnsupportedModel(
            f"{where} holds its weights as pickles only ({', '.join(pickles[:3])}), which can run code when read.",
            way_out="Convert to safetensors: load the model where you trust it and save_pretrained() it again.",
        )
    return UnsupportedModel(
        f"{where} has neither {SINGLE_FILE} nor {INDEX_FILE}.", way_out="Weights must be safetensors."
    )


def _check_index(placed: Mapping[str, str], headers: Mapping[str, WeightHeader]) -> None:
    for tensor, shard in placed.items():
        if tensor not in headers[shard].tensors:
            raise UnsupportedModel(f"{INDEX_FILE} places tensor {tensor} in {shard}, which does not hold it.")


def _check_tensors(geometry: Geometry, tensors: Mapping[str, TensorEntry]) -> None:
    expected = geometry.tensor_shapes()
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise UnsupportedModel(f"{_some(missing)} missing from the weights, though config.json asks for it.")
    # some files hold a head although it is tied to the embeddings
    optional: dict[str, Shape] = {"lm_head.weight": (geometry.vocab_size, geometry.hidden_size)}
    for name, entry in tensors.items():
        if name.endswith("rotary_emb.inv_freq"):
            continue  # a buffer that older versions of transformers saved; it follows from the config
        shape = expected.get(name, optional.get(name))
        if shape is None:
            raise UnsupportedModel(f"tensor {name} is not part of a {geometry.family} model of this config.json.")
        if entry.shape != shape:
            raise UnsupportedModel(f"tensor {name} has shape {entry.shape}; config.json asks for {shape}.")
        if entry.dtype not in DTYPES:
            raise UnsupportedModel(
                f"tensor {name} is stored as {entry.dtype}.",
                way_out=f"Register the original model in one of {', '.join(DTYPES)}.",
            )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more tensors are" if len(names) > 3 else " is" if len(names) == 1 else " are"
    return f"tensor {', '.join(names[:3])}{more}"


def _model_files(files: ModelFiles, headers: Mapping[str, WeightHeader]) -> dict[str, int]:
    """The files that a checkpoint takes over or is made from, by the rule of `belongs_to_model`."""
    return {name: size for name, size in files.sizes().items() if name in headers or belongs_to_model(name)}


def belongs_to_model(name: str) -> bool:
    """Whether a top-level file beside the weights is config, tokenizer or template; never code or pickles."""
    return name.endswith(_ENDINGS)


def _folder_digest(files: ModelFiles, sizes: Mapping[str, int], headers: Mapping[str, WeightHeader]) -> str:
    digest = hashlib.sha256()
    for name, size in sorted(sizes.items()):
        content = headers[name].raw if name in headers else files.read(name, 0, size)
        digest.update(f"{name}\n{size}\n{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def _facts(
    geometry: Geometry,
    headers: Mapping[str, WeightHeader],
    sizes: Mapping[str, int],
    *,
    repo_id: str,
    revision: str,
    path: Path | None,
) -> BaseModelFacts:
    stored: Counter[str] = Counter()
    for header in headers.values():
        for entry in header.tensors.values():
            stored[entry.dtype] += entry.end - entry.begin
    return BaseModelFacts(
        repo_id=repo_id,
        revision=revision,
        path=path,
        geometry=geometry,
        parameters=geometry.parameters(),
        bytes=sum(sizes[name] for name in headers),
        dtype=DTYPES[stored.most_common(1)[0][0]],
        files=dict(sizes),
    )

"""Which files of a folder or repository are a base model, and reading them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from publisher.errors import PublisherError, UnsupportedModel
from publisher.files.faults import fault_of
from publisher.files.json_object import MAX_BYTES, parse_object, refuse_pointer
from publisher.weights.index import INDEX_FILE

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
#: transformers looks for a tokenizer's further chat templates in this folder, and nowhere else below the model's
TEMPLATES = "additional_chat_templates/"

_ENDINGS = (
    ".json", ".txt", ".jinja", ".tiktoken", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model",
)  # fmt: skip
_CODE_AND_PICKLES = (".py", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".safetensors")
#: trainers', adapters' and our own records, by whose presence other tools decide what a folder holds
_NOT_THE_MODEL = re.compile(
    r"adapter_config\.json|loram\.json|bom\.cdx\.json|provenance\.intoto\.json|trainer_state\.json|(\w+_)?results\.json|training_args\.json"
    r"|(ds_config|deepspeed_config|zero_config|accelerate_config)\w*\.json|train(ing)?_log\.(txt|json)"
    r"|requirements\.txt|optimizer\.\w+|scheduler\.\w+|rng_state.*|.*\.index(\.\w+)?\.json|model_index\.json",
    re.IGNORECASE,
)
#: as Meta, Google, Qwen, Mistral and Apache name what has to be passed on with a model
_LEGAL = re.compile(
    r"((third|3rd)[-_ ]?party[-_ ]?)?"
    r"(licen[cs]es?|notices?|copying|copyright|(acceptable[-_ ]?|prohibited[-_ ]?)?use[-_ ]?policy"
    r"|terms([-_ ]of[-_ ]\w+)?)([-_. ].*)?",
    re.IGNORECASE,
)


class ModelFiles(Protocol):
    """The files of a folder or of a commit: those at its top, and further chat templates."""

    where: str

    def sizes(self) -> Mapping[str, int]:
        """Bytes of every file."""

    def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (not included) of one file."""


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
        try:
            paths = [*sorted(self._folder.iterdir()), *sorted(self._folder.glob(f"{TEMPLATES}*"))]
            return {path.relative_to(self._folder).as_posix(): path.stat().st_size for path in paths if path.is_file()}
        except OSError as error:
            raise self._unreadable(error) from error

    def read(self, name: str, start: int, end: int) -> bytes:
        try:
            with (self._folder / name).open("rb") as file:
                file.seek(start)
                return file.read(end - start)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> PublisherError:
        return fault_of(str(error.filename or self.where), error, fault=UnsupportedModel)


def is_in_place(name: str) -> bool:
    """Whether a file lies where files of a model lie: at the top, or among its further chat templates."""
    return "/" not in name.removeprefix(TEMPLATES)


def belongs_to_model(name: str) -> bool:
    """Whether a file beside the weights is config, tokenizer, template, card or licence; never code or pickles."""
    last = name.removeprefix(TEMPLATES)
    if not name.isprintable():
        return False  # not a name that JSON, a database and a Hub can hold
    if last.startswith(".") or not is_in_place(name) or (last != name and not last.endswith(".jinja")):
        return False
    if is_document(name) or name == INDEX_FILE:
        return True
    return last.endswith(_ENDINGS) and not _NOT_THE_MODEL.fullmatch(last)


def is_document(name: str) -> bool:
    """Whether it is text for people that goes with the model: its card and licence texts."""
    return name == CARD_FILE or is_legal(name)


def is_legal(name: str) -> bool:
    """Whether it is a licence, notice or policy that whoever passes the model on has to pass on."""
    return bool(_LEGAL.fullmatch(name)) and not name.endswith((*_CODE_AND_PICKLES, ".json"))


def json_object(files: ModelFiles, sizes: Mapping[str, int], name: str) -> dict[str, Any]:
    """The JSON object in one of the files. Raises UnsupportedModel."""
    where = f"{name} in {files.where}"
    if sizes[name] > MAX_BYTES:
        raise UnsupportedModel(f"{where} has {sizes[name]} bytes; at most {MAX_BYTES} are read.")
    return parse_object(files.read(name, 0, sizes[name]), where, UnsupportedModel)


def refuse_pointers(files: ModelFiles, sizes: Mapping[str, int], names: list[str]) -> None:
    """Raises UnsupportedModel naming the first of `names` that Git LFS holds instead of the folder."""
    for name in names:
        start = files.read(name, 0, sizes[name]) if sizes[name] <= 1024 else b""
        refuse_pointer(start, f"{name} in {files.where}", UnsupportedModel)

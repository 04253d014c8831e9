"""`loram.json`, the manifest: what a checkpoint is, from what and how it was made, and every file's sha256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError

from publisher.errors import RequestFault
from publisher.manifest.evaluation import EvaluationReport
from publisher.manifest.part import Part
from publisher.manifest.versions import CURRENT, SEALED_SINCE, stated_version, upgraded

FILE_NAME = "loram.json"
#: what is written; what came with which version, and how older ones are read: publisher.manifest.versions
FORMAT_VERSION = str(CURRENT)
_DIGEST = "digest"
_CHUNK = 8 << 20


class FileRecord(Part):
    size: int = Field(ge=0, description="bytes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def _within_a_folder(files: dict[str, FileRecord]) -> dict[str, FileRecord]:
    for name in files:
        path = PurePosixPath(name)
        if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise ValueError(f"{name!r} is no path within a folder")
    return files


#: name → file; whoever compares a folder with it reads nothing outside of that folder
Files = Annotated[dict[str, FileRecord], AfterValidator(_within_a_folder)]


class BaseModelRecord(Part):
    """The model that was pruned. `endpoint` is the Hub it came from, None for a local folder."""

    repo_id: str = Field(description="what recovered adapters name; of a folder without a public name the folder's own")
    revision: str = Field(description="the commit; for a local folder, a digest over its files")
    endpoint: str | None = None
    files: Files = Field(default_factory=dict)

    @property
    def commit(self) -> str | None:
        """The revision that a Hub understands; None for a local folder."""
        return self.revision if self.endpoint else None

    @property
    def is_public(self) -> bool:
        """Whether `repo_id` means the same on every machine: a repository's name, not a folder's."""
        namespace, slash, name = self.repo_id.partition("/")
        return self.endpoint is not None or bool(namespace and slash and name and "/" not in name)


class Widths(Part):
    """What one decoder layer holds; 0 of what it has none of, or none that could be removed."""

    query_heads: int = Field(ge=0)
    kv_heads: int = Field(ge=0)
    neurons: int = Field(ge=0)
    experts: int = Field(default=0, ge=0)


class Counts(Part):
    base: int = Field(ge=0)
    pruned: int = Field(ge=0)

    @property
    def reduction(self) -> float:
        """How many times fewer."""
        return self.base / max(self.pruned, 1)


class Sizes(Part):
    """Bytes of the safetensors weight files."""

    base: int = Field(ge=0)
    checkpoint: int = Field(ge=0)

    @property
    def reduction(self) -> float:
        """How many times smaller the checkpoint is."""
        return self.base / max(self.checkpoint, 1)


class ReconstructionRecord(Part):
    """Layers solved for by least squares, before training. Errors: of what matrices put out, and of how that answers
    to changes, relative to what was wanted, mean over the matrices that were solved for."""

    tokens: int
    seconds: float
    peak_memory_bytes: int
    error_before: float
    error_after: float
    quantization_aware: bool = Field(
        default=False, description="solved with what was before them in 4 bits, and rounded by GPTQ"
    )


class CheckRecord(Part):
    """The weights looked at after `step` steps, to choose those to stop with."""

    step: int
    loss: float | None = Field(default=None, description="nats per token; None: no number, or not measured")


class AlignmentRecord(Part):
    """Losses in nats per token, of the first and the last step; None where layers were only reconstructed."""

    steps: int
    tokens: int
    seconds: float
    peak_memory_bytes: int
    first_loss: float | None = None
    last_loss: float | None = None
    step: int | None = Field(default=None, description="whose weights were taken; the last, or what `stop` chose")
    skipped_steps: int = Field(default=0, description="whose loss or gradient was no number, or a spike")
    tokens_per_second: float | None = None
    data_wait_share: float | None = Field(default=None, description="share of the seconds spent waiting for text")
    optimizer_state_bytes: int | None = None
    quantization_aware: bool = Field(default=False, description="trained against the weights in 4 bits")
    bf16_modules: list[str] = Field(default=[], description="linear layers that are not in 4 bits")
    gradient_matching: float = Field(default=0.0, description="weight of the distance to the base model's gradients")
    reconstruction: ReconstructionRecord | None = Field(default=None, description="None: there was none")
    checks: list[CheckRecord] = Field(default=[], description="of the recipe's way to stop")
    objective: str | None = Field(default=None, description="as the recipe names it")
    optimizer: str | None = Field(default=None, description="as the recipe names it")


class TextRecord(Part):
    """How sequences of text were made for calibrating, aligning and measuring (publisher.checkpoint.framing)."""

    before: list[str] = Field(description="tokens that every sequence, window and document begins with")
    close: list[str] = Field(description="tokens that end a document within a sequence")


class Manifest(Part):
    format_version: str = FORMAT_VERSION
    base: BaseModelRecord
    recipe: dict[str, Any] = Field(description="as in the API; defaults written out")
    recipe_digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="sha256 of the recipe's canonical JSON")
    parameters: Counts
    bytes: Sizes
    base_widths: list[Widths] = Field(description="of each layer of the base model")
    widths: list[Widths] = Field(description="of each layer of the checkpoint")
    alignment: AlignmentRecord | None = Field(default=None, description="None: not aligned")
    text: TextRecord | None = Field(default=None, description="None: not said, or no tokenizer")
    evaluation: EvaluationReport | None = Field(default=None, description="with the certificate; None: not measured")
    software: dict[str, str] = Field(default_factory=dict, description="package → version")
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    created_at: datetime
    files: Files = Field(description="every file of the checkpoint except this one")
    digest: str | None = Field(default=None, description="of this manifest, as `digest_of` has it; None before 2.3")

    @property
    def strength(self) -> float:
        """What adapters trained on this checkpoint are multiplied by on the base model, as its certificate found; 1
        without one."""
        return self.evaluation.certificate.strength if self.evaluation and self.evaluation.certificate else 1.0

    @property
    def is_quantized(self) -> bool:
        """Whether weights are stored in fewer bits than the base model's, by the recipe: of whatever version it is."""
        quantization = self.recipe.get("quantization")
        return isinstance(quantization, Mapping) and quantization.get("scheme", "none") != "none"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read `folder/loram.json`, of this or an older major version (publisher.manifest.versions).

        Raises RequestFault if it is missing, not a manifest, of a newer major version, or not as it was written: its
        own digest says so (manifests before 2.3 have none, and `digest` is None).
        """
        path = folder / FILE_NAME
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise RequestFault(f"{folder} has no {FILE_NAME}; it is not a LoRAM checkpoint.") from error
        except (ValueError, RecursionError) as error:
            raise RequestFault(f"{path} is not JSON: {error}.") from error
        if isinstance(content, dict):
            _refuse_edited(path, content)
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: object, where: str) -> Self:
        """A manifest's JSON, as a database or an answer has it; `where` names it for people.

        Raises RequestFault as `read` does, but does not ask its digest.
        """
        if not isinstance(content, Mapping):
            raise RequestFault(f"{where} has no format_version; it is not a manifest.")
        try:
            return cls.model_validate(upgraded(content, where))
        except ValidationError as error:
            raise RequestFault(f"{where} is not a manifest: {error}") from error

    def write(self, folder: Path) -> None:
        """Write `folder/loram.json` with a digest of its own, whatever `digest` was."""
        content = self.model_dump(mode="json")
        text = json.dumps(content | {_DIGEST: digest_of(content)}, indent=2, ensure_ascii=False)
        (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")

    def verify(self, folder: Path, on_bytes: Callable[[int], None] | None = None) -> list[str]:
        """What is wrong with the files in `folder`, one sentence each; empty: all are as the manifest says.

        Files that the manifest does not name are nobody's business here. `on_bytes` hears of every chunk read.
        """
        problems = (self.problem(folder, name, on_bytes) for name in sorted(self.files))
        return [problem for problem in problems if problem]

    def problem(self, folder: Path, name: str, on_bytes: Callable[[int], None] | None = None) -> str | None:
        """What is wrong with the file `name` in `folder`, one sentence; None: it is as the manifest says."""
        if name not in self.files:
            return f"{name} is not among the files that {FILE_NAME} names."
        return problem_of(folder / name, name, self.files[name], on_bytes)


def digest_of(content: Mapping[str, Any]) -> str:
    """Digest of a manifest's JSON: sha256 (hex) over it without `digest`, keys sorted, no spaces, in ASCII."""
    sealed = {key: value for key, value in content.items() if key != _DIGEST}
    return hashlib.sha256(json.dumps(sealed, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def verify(folder: Path) -> list[str]:
    """Read the manifest of `folder` and check every file's size and sha256 against it."""
    return Manifest.read(folder).verify(folder)


def files_named_in(text: bytes) -> set[str]:
    """The files that a manifest of whatever version names; none if it is not a manifest at all."""
    try:
        return set(json.loads(text)["files"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return set()


def record(path: Path, on_bytes: Callable[[int], None] | None = None) -> FileRecord:
    """Size and sha256 of a file; `on_bytes` hears of every chunk read."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if on_bytes:
                on_bytes(len(chunk))
    return FileRecord(size=size, sha256=digest.hexdigest())


def problem_of(
    path: Path, name: str, expected: FileRecord, on_bytes: Callable[[int], None] | None, *, how: str = "published"
) -> str | None:
    """What is wrong with the file at `path`, one sentence that calls it `name`; None: it is `expected`, as it was
    published, or whatever `how` says."""
    if not path.is_file():
        return f"{name} is missing."
    if path.stat().st_size != expected.size:
        return f"{name} has {path.stat().st_size} bytes; {expected.size} were {how}."
    found = record(path, on_bytes).sha256
    return None if found == expected.sha256 else f"{name} has sha256 {found}; {expected.sha256} was {how}."


def _refuse_edited(path: Path, content: Mapping[str, Any]) -> None:
    """Someone who names another base model in a manifest sends adapters to the wrong one."""
    stated = content.get(_DIGEST)
    if stated is None and stated_version(content, str(path)) < SEALED_SINCE:
        return
    if stated != digest_of(content):
        said = "has lost its digest" if stated is None else "is not as it was written: its digest is another"
        raise RequestFault(
            f"{path} {said}. It was edited or damaged.", way_out="Get it again from where the checkpoint was published."
        )

"""All that can be told of a checkpoint's folder without loading it: files, what they say, the base model's, who signed.

found = verify_checkpoint(Path("checkpoint"), base=Path("base"), public_key=Path("publisher.pem"))
found.problems  # [] of a checkpoint that is as it was published
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from publisher.architecture.masks_file import FILE_NAME as MASKS
from publisher.checkpoint import signature
from publisher.checkpoint.agreement import disagreements
from publisher.checkpoint.weight_masks import open_masks
from publisher.errors import RequestFault
from publisher.manifest import manifest as manifests
from publisher.manifest.manifest import FileRecord, Manifest, problem_of
from publisher.weights.parameters import read_parameters

#: hears of every chunk of a file that was read
OnBytes = Callable[[int], None]

#: what transformers takes from a model's folder, whoever put it there: weights, code, tokenizers, templates, a LoRA;
#: and any safetensors file beside, as engines do that serve models
_TAKEN = re.compile(
    r"(.*/)?((model|pytorch_model).*\.(safetensors|bin|json)|.*\.(py|jinja)|tokenizer.*|(vocab|merges|tekken"
    r"|special_tokens_map|added_tokens|generation_config|chat_template|processor_config|preprocessor_config)\..*"
    r"|.*\.model)|adapter_config\.json|[^/]*\.safetensors"
)


@dataclass(frozen=True)
class Verification:
    """`files`: how many the manifest names; `problems`: what is wrong, a sentence each; `others`: files beside that are
    nobody's concern; `base_files`: of the base model, how many were compared; `signed`: whether the folder has a
    signature; `signed_by`: the key that it is genuine under, None where none was asked for."""

    files: int
    problems: tuple[str, ...]
    others: tuple[str, ...] = ()
    base_files: int | None = None
    signed: bool = False
    signed_by: str | None = None


def verify_checkpoint(
    folder: Path, *, base: Path | None = None, public_key: Path | None = None, on_bytes: OnBytes | None = None
) -> Verification:
    """Compare what is in `folder` with its manifest, its parts with each other and, where they are given, with the base
    model in `base` and with the signature under `public_key` (PEM).

    Every file is read once, of a signed checkpoint twice. What files say is compared when they are whole. Raises
    RequestFault for what is no checkpoint, or no public key; ModuleNotFoundError without the extra `sign`.
    """
    manifest = Manifest.read(folder)
    problems = manifest.verify(folder, on_bytes)
    others = tuple(_beside(folder, manifest))
    problems += [f"{name} is a link to a folder: what is in it was not compared." for name in _linked(folder)]
    problems += [
        f"{name} is not among the files that {manifests.FILE_NAME} names, and loading takes it."
        for name in others
        if _TAKEN.fullmatch(name)
    ]
    if not problems:
        problems += _agreeing(lambda: disagreements(folder, manifest))
    if base is not None:
        problems += _of_base(folder, manifest, base, on_bytes)
    signed_by = None if public_key is None else signature.key_id(public_key)
    if public_key is not None and (wrong := signature.problem(folder, public_key)):
        problems, signed_by = [*problems, wrong], None
    return Verification(
        len(manifest.files),
        tuple(problems),
        others,
        None if base is None else len(manifest.base.files),
        (folder / signature.FILE_NAME).is_file(),
        signed_by,
    )


def bytes_to_read(folder: Path, *, base: bool) -> int:
    """What `on_bytes` hears of in all."""
    manifest = Manifest.read(folder)
    return sum(file.size for file in [*manifest.files.values(), *(manifest.base.files.values() if base else ())])


def _agreeing(look: Callable[[], list[str]]) -> list[str]:
    """What stops the look is what is wrong."""
    try:
        return [f"It contradicts itself: {clause}." for clause in look()]
    except RequestFault as fault:
        return [fault.message]


def _beside(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Files that the manifest does not name. Names with a leading dot are the Hub's and git's (`.gitattributes`,
    `.cache/huggingface`), which nothing loads."""
    known = manifest.files.keys() | {manifests.FILE_NAME, signature.FILE_NAME}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in known and not any(part.startswith(".") for part in name.split("/")):
            yield name


def _linked(folder: Path) -> Iterator[str]:
    """Links to folders, which nothing here and no signature looks into, and loading does: chat templates lie in one. A
    Hub's cache has links to files alone."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and path.is_dir() and not name.startswith("."):
            yield name


def _of_base(folder: Path, manifest: Manifest, base: Path, on_bytes: OnBytes | None) -> Iterator[str]:
    """The base model's files against the manifest's record, and its weights against the masks' full shapes."""
    files: dict[str, FileRecord] = manifest.base.files
    if not files:
        yield f"{manifests.FILE_NAME} names no file of the base model, so that none can be compared."
    for name in sorted(files):
        if problem := problem_of(base / name, name, files[name], on_bytes, how="pruned"):
            yield f"Base model: {problem}"
    try:
        shapes = read_parameters(base).shapes
        for clause in open_masks(folder / MASKS).unfit(shapes, base=True):
            yield f"Base model: {clause}."
    except RequestFault as fault:
        yield f"Base model: {fault.message}"

"""What `publisher rebuild` does: the manifest's recipe on the manifest's base model, and the files side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath

from publisher.checkpoint.folder import open_checkpoint
from publisher.client.progress import bytes_counted
from publisher.errors import RequestFault
from publisher.manifest.manifest import BaseModelRecord, FileRecord, Manifest, record
from publisher.recipe.stages import Stage
from publisher.recipe.stored import stored_recipe
from worker.build.corpora import corpus_sources
from worker.build.run import base_source, datasets_of, make, refuse_occupied
from worker.models.device import choose_device
from worker.request import BuildRequest

#: what loading and recovery read; the rest tells of the making, with dates, durations and pictures
_READ = (".safetensors", ".json", ".jinja", ".model", ".txt")
_TELLS = (".intoto.json", ".cdx.json")


@dataclass(frozen=True)
class Asked:
    """As it was typed."""

    checkpoint: str
    out: Path
    base: str | None
    corpora: tuple[str, ...]
    revision: str | None
    endpoint: str | None
    device: str
    devices: tuple[str, ...]
    tasks: Path | None
    work: Path | None


@dataclass(frozen=True)
class Rebuilt:
    """`files`: of the checkpoint, whether each came out the same; `notes`: what was other than then."""

    files: Mapping[str, bool]
    notes: tuple[str, ...]


def rebuilt(asked: Asked) -> Rebuilt:
    """Make the checkpoint again. Raises RequestFault, before anything is computed, if the base model is not the one
    that the manifest names, and whatever a build raises."""
    refuse_occupied(asked.out)
    manifest = Manifest.read(open_checkpoint(asked.checkpoint, asked.revision, asked.endpoint, weights=False))
    recipe = stored_recipe(manifest.recipe)
    base = _base(asked.base, manifest.base)
    chosen = choose_device(asked.device)
    aligning = [choose_device(name) for name in asked.devices] or [chosen]
    folder = Path(base)
    public = manifest.base.repo_id if folder.is_dir() and manifest.base.is_public else None
    revision = None if folder.is_dir() else manifest.base.commit
    request = BuildRequest(
        base=base_source(base, recipe, aligning if recipe.alignment else [], public, revision),
        recipe=recipe,
        corpora=corpus_sources(recipe, asked.corpora, datasets_of(asked.out, asked.work)),
        device=chosen.name,
        tasks_folder=asked.tasks,
        devices=asked.devices,
    )
    make(request, asked.out, asked.work, Stage.PACKAGE)
    found = Manifest.read(asked.out)
    files = {name: _same(name, manifest, found) for name in sorted(manifest.files) if _is_read(name)}
    return Rebuilt(files, tuple(_notes(manifest, files)))


def _base(given: str | None, stated: BaseModelRecord) -> str:
    """The base model's folder or repository, where it is at hand its files known to be those of the manifest."""
    if given is None and not stated.is_public:
        raise RequestFault(
            f"This checkpoint was made of a folder, {Path(stated.repo_id).name}, and its publisher gave no repository "
            "where others get that model.",
            field="base",
            way_out="Name its folder with --base.",
        )
    base = given or stated.repo_id
    folder = Path(base)
    if folder.is_dir():
        with bytes_counted("compare", sum(file.size for file in stated.files.values())) as count:
            for name, expected in sorted(stated.files.items()):
                _refuse_other(folder, name, expected == _record(folder / name, count))
    return base


def _refuse_other(folder: Path, name: str, same: bool) -> None:
    if not same:
        raise RequestFault(
            f"{folder / name} is not the file that the checkpoint was made from, or is missing.",
            field="base",
            way_out="Name the base model, as it was then, with --base.",
        )


def _record(path: Path, count: Callable[[int], None]) -> FileRecord | None:
    return record(path, count) if path.is_file() else None


def _is_read(name: str) -> bool:
    return PurePath(name).suffix in _READ and not name.endswith(_TELLS)


def _same(name: str, then: Manifest, now: Manifest) -> bool:
    return now.files.get(name) == then.files[name]


def _notes(then: Manifest, files: Mapping[str, bool]) -> Iterator[str]:
    for package, stated in then.software.items():
        if (here := _installed(package)) != stated:
            yield f"{package}: {stated} then, {here or 'not installed'} here."
    others = sorted(then.files.keys() - files.keys())
    if others:
        yield f"Not compared, as they tell of the making: {', '.join(others)}."


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

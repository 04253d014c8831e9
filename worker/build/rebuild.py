"""What `publisher rebuild` does: the manifest's recipe on the manifest's base model, and the files side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath

from publisher.checkpoint.folder import open_checkpoint
from publisher.client.progress import bytes_counted
from publisher.errors import RequestFault
from publisher.manifest import slsa_provenance
from publisher.manifest.manifest import BaseModelRecord, Manifest, problem_of
from publisher.recipe.stages import Stage
from publisher.recipe.stored import stored_recipe
from worker.build.options import Means
from worker.build.run import make, refuse_occupied, request_of
from worker.card import bom

#: what loading and recovery read; the rest tells of the making, with dates, durations and pictures
_READ = (".safetensors", ".json", ".jinja", ".model", ".txt")
_TELLS = (slsa_provenance.FILE_NAME, bom.FILE_NAME)


@dataclass(frozen=True)
class Asked:
    """As it was typed."""

    checkpoint: str
    out: Path
    base: str | None
    revision: str | None
    endpoint: str | None
    means: Means


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
    here = Path(base).is_dir()
    public = manifest.base.repo_id if here and manifest.base.is_public else None
    revision = None if here else manifest.base.commit
    request = request_of(base, recipe, asked.out, asked.means, published_as=public, revision=revision)
    make(request, asked.out, asked.means.work, Stage.PACKAGE)
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
                if problem := problem_of(folder / name, name, expected, count, how="pruned"):
                    raise RequestFault(
                        f"{folder} is not the base model that the checkpoint was made from: {problem}",
                        field="base",
                        way_out="Name the base model, as it was then, with --base.",
                    )
    return base


def _is_read(name: str) -> bool:
    return PurePath(name).suffix in _READ and name not in _TELLS


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

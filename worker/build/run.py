"""What `publisher build` does, after its options are read: pin the base model, run the stages, deliver the folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from huggingface_hub import get_token
from transformers.utils import logging as transformers_logging

from publisher.architecture.sparsity import pruned_parameters
from publisher.base_model.facts import BaseModelFacts, inspect_folder, inspect_repository
from publisher.client.extras import require
from publisher.errors import RequestFault
from publisher.files.disk import full_disk_as_fault
from publisher.files.faults import file_faults
from publisher.manifest.manifest import Manifest
from publisher.recipe import Recipe
from publisher.recipe.file import read_recipe
from publisher.recipe.stages import Stage
from worker.build.corpora import corpus_sources
from worker.build.fit import refuse_too_large
from worker.build.options import Means
from worker.build.terminal import shown_progress
from worker.models.device import Device, choose_device
from worker.request import BaseModelSource, BuildRequest
from worker.stages.pipeline import run_pipeline, stages_of
from worker.storage.collection import LARGER_DISK
from worker.storage.folder import RECORD, empty
from worker.storage.store import StageStore

if TYPE_CHECKING:
    from publisher.configuration.signing_key import ModelKey

_WORK = ".stages"


@dataclass(frozen=True)
class Wanted:
    """As it was typed."""

    base: str
    out: Path
    recipe_file: Path
    base_name: str | None
    until: str | None
    signing_key: Path | None
    means: Means


def run(wanted: Wanted) -> None:
    """Make the checkpoint, or the output of the stage that it stops after."""
    last = Stage(wanted.until) if wanted.until else Stage.PACKAGE
    refuse_occupied(wanted.out)
    recipe = read_recipe(wanted.recipe_file)
    key = read_signing_key(wanted.signing_key) if wanted.signing_key else None
    request = request_of(wanted.base, recipe, wanted.out, wanted.means, last, published_as=wanted.base_name)
    make(replace(request, signing_key=key), wanted.out, wanted.means.work, last)
    if last is Stage.PACKAGE:
        say_certificate(wanted.out)


def read_signing_key(path: Path) -> ModelKey:
    """Raises RequestFault for another file, MissingExtra where nothing here could sign with it."""
    require("sign")
    from publisher.configuration.signing_key import ModelKey

    with file_faults(str(path), field=None):
        return ModelKey.read(path.read_text(encoding="ascii", errors="replace"), str(path))


def request_of(
    base: str,
    recipe: Recipe,
    out: Path,
    means: Means,
    last: Stage = Stage.PACKAGE,
    *,
    published_as: str | None = None,
    revision: str | None = None,
) -> BuildRequest:
    """For a build into `out` up to stage `last`; the others as in `base_source`. Refuses, before anything is computed,
    what cannot be built."""
    chosen = choose_device(means.device)
    aligning = [choose_device(name) for name in means.devices] or [chosen]
    source = base_source(base, recipe, aligning if _aligns(last) else [], published_as, revision)
    datasets = StageStore(means.work or out / _WORK).datasets
    return BuildRequest(
        base=source,
        recipe=recipe,
        corpora=corpus_sources(recipe, means.corpora, datasets, last),
        device=chosen.name,
        tasks_folder=means.tasks,
        devices=means.devices,
    )


def _aligns(last: Stage) -> bool:
    """Whether the stages up to `last` may include align."""
    stages = list(Stage)
    return stages.index(last) >= stages.index(Stage.ALIGN)


def make(request: BuildRequest, out: Path, work: Path | None, last: Stage) -> None:
    """Run the stages up to `last` and put its output into `out`."""
    if last not in stages_of(request, last):
        raise RequestFault(f"--until {last}: the recipe leaves this stage out.", way_out="Choose another stage.")
    transformers_logging.disable_progress_bar()
    store = StageStore(work or out / _WORK)
    with shown_progress() as shown:
        folders = run_pipeline(request, store, shown.context, last, shown.on_stage)
    with full_disk_as_fault(f"stage {last}", out, LARGER_DISK):
        deliver(folders[last], out, own_store=work is None)


def say_certificate(out: Path) -> None:
    """The build's last word, on standard error."""
    evaluation = Manifest.read(out).evaluation
    if evaluation and evaluation.certificate:
        certificate = evaluation.certificate
        click.echo(f"Certificate {certificate.verdict.words}: {certificate.reason}.", err=True)


def deliver(folder: Path, out: Path, *, own_store: bool) -> None:
    """Put a finished stage's files into `out`, all or none; the stage store inside `out` has then done its work."""
    ready = out / _WORK / ".ready"
    empty(ready, keep_state=False)
    shutil.copytree(
        folder,
        ready,
        dirs_exist_ok=True,
        ignore=lambda at, names: [RECORD] if Path(at) == folder else [],
        copy_function=_link_or_copy if own_store else shutil.copyfile,
    )
    for path in ready.iterdir():
        path.rename(out / path.name)
    shutil.rmtree(out / _WORK)


def _link_or_copy(source: str, target: str) -> None:
    """The store goes away, so a second name is enough; not so for files that only the base model's owner has."""
    if os.path.islink(source):
        shutil.copyfile(source, target)
        return
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def refuse_occupied(out: Path) -> None:
    """`out` may be missing, empty, or hold nothing but an earlier build's unfinished stages."""
    if out.exists() and any(path.name != _WORK for path in out.iterdir()):
        raise RequestFault(f"{out} is not empty.", way_out="Name a new folder; nothing is overwritten.")


def base_source(
    base: str,
    recipe: Recipe,
    devices: Sequence[Device],
    published_as: str | None = None,
    revision: str | None = None,
) -> BaseModelSource:
    """Pin the base model as it is now, or as it was at `revision` of its repository.

    Refuses, before anything is fetched, what cannot be pruned by this recipe, or aligned on `devices` if there are any.
    """
    folder = Path(base)
    facts: BaseModelFacts
    if folder.exists() or base.startswith((".", "/", "~")) or base.count("/") > 1:
        facts = inspect_folder(folder.expanduser().resolve(), published_as)
    elif published_as is not None:
        raise RequestFault(f"--base-name is for folders; {base} has a public name.", way_out="Leave it out.")
    else:
        facts = inspect_repository(base, revision, token=get_token())
    pruned_parameters(facts.geometry, recipe.pruning)
    if devices:
        refuse_too_large(facts.geometry, recipe, devices)
    size = sum(facts.files.values())
    return BaseModelSource(
        facts.repo_id, facts.revision, facts.path, token=get_token(), published_as=published_as, bytes=size
    )

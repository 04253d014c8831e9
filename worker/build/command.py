"""`publisher build`: the same stages as a job, in this process, without service, database or broker."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import click
from huggingface_hub import get_token
from transformers.utils import logging as transformers_logging

from publisher.architecture.sparsity import pruned_parameters
from publisher.base_model.facts import BaseModelFacts, inspect_folder, inspect_repository
from publisher.configuration.workers import device_names
from publisher.errors import PublisherError, RequestFault
from publisher.manifest.manifest import Manifest
from publisher.recipe import Recipe
from publisher.recipe.file import read_recipe
from publisher.recipe.stages import Stage
from worker.build.corpora import corpus_sources
from worker.build.fit import refuse_too_large
from worker.build.terminal import shown_progress
from worker.models.device import Device, choose_device
from worker.request import BaseModelSource, BuildRequest
from worker.stages.pipeline import run_pipeline, stages_of
from worker.storage.disk import full_disk_as_fault
from worker.storage.folder import RECORD, empty
from worker.storage.store import StageStore

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_WORK = ".stages"
_STOPPED_BY_KEYBOARD = 130


def known_device(context: click.Context, parameter: click.Parameter, device: str) -> str:
    if not DEVICE.fullmatch(device):
        raise click.BadParameter(f"{device!r} is none of auto, cpu, cuda, cuda:N.")
    return device


def known_devices(context: click.Context, parameter: click.Parameter, devices: str) -> tuple[str, ...]:
    try:
        return device_names(devices)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


@click.command()
@click.argument("base")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--recipe", "recipe_file", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--corpus",
    "corpora",
    multiple=True,
    metavar="NAME=PATH",
    help="Text that the recipe names; repeatable: NAME=PATH[?text_field=…&held_out_fraction=…], quoted for the shell. "
    "A dataset: NAME=hf://owner/name[@revision][?config=…&split=…].",
)
@click.option(
    "--base-name",
    metavar="org/name",
    help="Repository where others get the model in folder BASE: manifest and card call it so. Without it they hold "
    "the folder's own name, and whoever recovers an adapter has to name the base model.",
)
@click.option(
    "--until",
    type=click.Choice([stage.value for stage in Stage if stage is not Stage.PUBLISH]),
    help="Stop after this stage; OUT gets its output.",
)
@click.option("--device", default="auto", show_default=True, callback=known_device, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--devices",
    default="",
    metavar="cuda:0,cuda:1",
    callback=known_devices,
    help="Devices that align together, when one has too little memory; all else runs on --device.",
)
@click.option(
    "--tasks",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="PUBLISHER_LM_EVAL_TASKS",
    help="Folder of lm-evaluation-harness tasks of your own that the recipe names. They may run Python.",
)
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that keeps finished stages for other builds. Without it they lie in OUT/.stages until OUT is whole.",
)
def build(
    *,
    base: str,
    out: Path,
    recipe_file: Path,
    corpora: tuple[str, ...],
    base_name: str | None,
    until: str | None,
    device: str,
    devices: tuple[str, ...],
    tasks: Path | None,
    work: Path | None,
) -> None:
    """Make a checkpoint of BASE (a folder or a Hub repository) in the new folder OUT.

    A build that is stopped or fails goes on from its last finished stage when the same command is given again.
    """
    try:
        last = Stage(until) if until else Stage.PACKAGE
        refuse_occupied(out)
        recipe = read_recipe(recipe_file)
        chosen = choose_device(device)
        aligning = [choose_device(name) for name in devices] or [chosen]
        request = BuildRequest(
            base=base_source(base, recipe, aligning if _aligns(last) else [], base_name),
            recipe=recipe,
            corpora=corpus_sources(recipe, corpora, StageStore(work or out / _WORK).datasets, last),
            device=chosen.name,
            tasks_folder=tasks,
            devices=devices,
        )
        make(request, out, work, last)
        if last is Stage.PACKAGE:
            say_certificate(out)
    except PublisherError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("\nStopped. Finished stages are kept: the same command goes on from there.", err=True)
        raise SystemExit(_STOPPED_BY_KEYBOARD) from None
    click.echo(str(out))


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
    with full_disk_as_fault(last, out):
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
    base: str, recipe: Recipe, devices: Sequence[Device], published_as: str | None = None
) -> BaseModelSource:
    """Pin the base model as it is now; refuses before anything is fetched what cannot be pruned by this recipe, or
    aligned on `devices`, if there are any."""
    folder = Path(base)
    facts: BaseModelFacts
    if folder.exists() or base.startswith((".", "/", "~")) or base.count("/") > 1:
        facts = inspect_folder(folder.expanduser().resolve(), published_as)
    elif published_as is not None:
        raise RequestFault(f"--base-name is for folders; {base} has a public name.", way_out="Leave it out.")
    else:
        facts = inspect_repository(base, token=get_token())
    pruned_parameters(facts.geometry, recipe.pruning)
    if devices:
        refuse_too_large(facts.geometry, recipe, devices)
    size = sum(facts.files.values())
    return BaseModelSource(
        facts.repo_id, facts.revision, facts.path, token=get_token(), published_as=published_as, bytes=size
    )


if __name__ == "__main__":
    build()

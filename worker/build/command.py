"""`publisher build`: the same stages as a job, in this process, without service, database or broker."""

from __future__ import annotations

import re
from pathlib import Path

import click

from publisher.client.exit_codes import Exit, Told
from publisher.configuration.workers import device_names
from publisher.errors import PublisherError
from publisher.recipe.stages import Stage

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


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
    "--signing-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="PUBLISHER_SIGNING_KEY_FILE",
    metavar="FILE",
    help="Sign the checkpoint: a private key of an elliptic curve, as PEM. OUT gets model.sig.",
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
    signing_key: Path | None,
    work: Path | None,
) -> None:
    """Make a checkpoint of BASE (a folder or a Hub repository) in the new folder OUT.

    A build that is stopped or fails goes on from its last finished stage when the same command is given again.
    """
    # loads torch, which `--help` need not wait for
    from worker.build.run import Wanted, run

    try:
        run(Wanted(base, out, recipe_file, corpora, base_name, until, device, devices, tasks, signing_key, work))
    except PublisherError as error:
        raise Told(error) from error
    except KeyboardInterrupt:
        click.echo("\nStopped. Finished stages are kept: the same command goes on from there.", err=True)
        raise SystemExit(Exit.STOPPED) from None
    click.echo(str(out))


if __name__ == "__main__":
    build()

"""`publisher build`: the same stages as a job, in this process, without service, database or broker."""

from __future__ import annotations

from pathlib import Path

import click

from publisher.client.exit_codes import Exit, Told
from publisher.errors import PublisherError
from publisher.recipe.stages import Stage
from worker.build.options import Means, means_options


@click.command()
@click.argument("base")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--recipe", "recipe_file", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
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
@click.option(
    "--signing-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="PUBLISHER_SIGNING_KEY_FILE",
    metavar="FILE",
    help="Sign the checkpoint: a private key of an elliptic curve, as PEM. OUT gets model.sig.",
)
@means_options
def build(
    *,
    base: str,
    out: Path,
    recipe_file: Path,
    base_name: str | None,
    until: str | None,
    signing_key: Path | None,
    means: Means,
) -> None:
    """Make a checkpoint of BASE (a folder or a Hub repository) in the new folder OUT.

    A build that is stopped or fails goes on from its last finished stage when the same command is given again.
    """
    # loads torch, which `--help` need not wait for
    from worker.build.run import Wanted, run

    try:
        run(Wanted(base, out, recipe_file, base_name, until, signing_key, means))
    except PublisherError as error:
        raise Told(error) from error
    except KeyboardInterrupt:
        click.echo("\nStopped. Finished stages are kept: the same command goes on from there.", err=True)
        raise SystemExit(Exit.STOPPED) from None
    click.echo(str(out))


if __name__ == "__main__":
    build()

"""`publisher rebuild`: a published checkpoint made once more, by whoever doubts it or wants to change it."""

from __future__ import annotations

from pathlib import Path

import click

from publisher.client.exit_codes import Exit, Told
from publisher.errors import PublisherError
from worker.build.options import Means, means_options


@click.command()
@click.argument("checkpoint", metavar="DIR_OR_REPO")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--base", metavar="DIR_OR_REPO", help="The base model, if it is not where the manifest says.")
@click.option("--revision", help="Commit, branch or tag of the checkpoint's repository.")
@click.option("--endpoint", metavar="URL", help="Hub of the checkpoint's repository; HF_ENDPOINT by default.")
@means_options
def rebuild(
    *,
    checkpoint: str,
    out: Path,
    base: str | None,
    revision: str | None,
    endpoint: str | None,
    means: Means,
) -> None:
    """Make a published checkpoint again in the new folder OUT, by the recipe in its manifest, and compare.

    Prints a line for each file that loading or recovery reads: `same` or `differs`. Exits 0 if all are the same, byte
    by byte, else 1. Needs the base model, whose files are compared with the manifest first, and the recipe's corpora.
    Equal bytes are to be expected on the same kind of device with the same versions of the libraries; what differs is
    said.
    """
    # loads torch, which `--help` need not wait for
    from worker.build.rebuild import Asked, rebuilt

    try:
        found = rebuilt(Asked(checkpoint, out, base, revision, endpoint, means))
    except PublisherError as error:
        raise Told(error) from error
    except KeyboardInterrupt:
        click.echo("\nStopped. Finished stages are kept: the same command goes on from there.", err=True)
        raise SystemExit(Exit.STOPPED) from None
    for name, same in found.files.items():
        click.echo(f"{'same' if same else 'differs'}  {name}")
    for note in found.notes:
        click.echo(note, err=True)
    different = [name for name, same in found.files.items() if not same]
    if different:
        click.echo(f"{len(different)} of {len(found.files)} files came out otherwise; they are in {out}.", err=True)
        raise SystemExit(Exit.FAILED)
    click.echo(f"All {len(found.files)} files came out as they were published, byte by byte.", err=True)


if __name__ == "__main__":
    rebuild()

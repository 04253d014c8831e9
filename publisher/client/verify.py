"""`publisher verify`: every file of a checkpoint against the sha256 in its manifest."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from publisher.client.exit_codes import Exit
from publisher.client.progress import bytes_counted
from publisher.errors import PublisherError


@click.command()
@click.argument("checkpoint", metavar="DIR_OR_REPO")
@click.option("--revision", help="Commit, branch or tag of the checkpoint's repository.")
@click.option("--endpoint", metavar="URL", help="Hub of the checkpoint's repository; HF_ENDPOINT by default.")
def verify(*, checkpoint: str, revision: str | None, endpoint: str | None) -> None:
    """Check a checkpoint: that manifest, masks and config agree, and that all files, weights included, are whole.

    A repository is downloaded. Exits 1 and names every file that is missing or not as it was published.
    """
    from publisher.checkpoint.folder import open_checkpoint

    try:
        problems, files = problems_of(open_checkpoint(checkpoint, revision, endpoint))
    except PublisherError as error:
        problems, files = [" ".join(str(error).split())], 0
    for problem in problems:
        click.echo(f"Error: {problem}", err=True)
    if problems:
        sys.exit(Exit.FAILED)
    click.echo(f"{checkpoint}: all {files} files are as they were published")


def problems_of(folder: Path) -> tuple[list[str], int]:
    """What is wrong with a checkpoint, and how many files there are. Raises RequestFault for what is none, or
    contradicts itself."""
    from publisher.checkpoint.integrity import checked, strays
    from publisher.manifest.manifest import Manifest

    manifest = Manifest.read(folder)
    with bytes_counted("compare", sum(record.size for record in manifest.files.values())) as count:
        problems = [*manifest.verify(folder, count), *strays(folder, manifest)]
    if not problems:
        checked(folder)
    return problems, len(manifest.files)

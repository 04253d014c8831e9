"""`publisher merge`: an adapter for the base model, in a copy of it."""

from __future__ import annotations

from pathlib import Path

import click

from publisher.client.exit_codes import Told
from publisher.client.progress import bytes_shown
from publisher.errors import PublisherError

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("base", type=_FOLDER)
@click.argument("adapter", type=_FOLDER)
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--strength", type=float, default=1.0, show_default=True, help="Times the adapter's update.")
def merge(base: Path, adapter: Path, output: Path, strength: float) -> None:
    """Merge ADAPTER, recovered for the model in folder BASE, into a copy of it in OUTPUT.

    One tensor is in memory at a time; OUTPUT, which must not exist yet, appears when it is whole.
    """
    from publisher.checkpoint.recovery.merge_adapter import merge_adapter

    try:
        with bytes_shown("merge") as show:
            report = merge_adapter(base, adapter, output, strength=strength, progress=show)
    except PublisherError as error:
        raise Told(error) from error
    click.echo(f"Merged into {report.changed} of {report.weights} tensors: {output}")
    for note in report.notes:
        click.echo(f"Note: {note}")

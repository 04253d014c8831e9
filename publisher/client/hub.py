"""`publisher hub`: what an operator does with the embedded Hub's folder. Safe while the service runs, needs none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.filesize import decimal

from publisher.client.progress import bytes_shown
from publisher.errors import InfrastructureFault, RequestFault

if TYPE_CHECKING:
    from publisher.hub.storage import HubStorage


@click.group()
def hub() -> None:
    """Check and tidy the embedded Hub's storage."""


_DATA = click.option(
    "--data",
    "data_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="the service's folder, as for `up`  [default: PUBLISHER_DATA_DIR, or data]",
)


@hub.command()
@_DATA
def check(data_dir: Path | None) -> None:
    """Compare every file of every commit with its sha256, and read every record.

    Exit code 0 if all is as it was stored; 1 if not, with a line for each damaged or missing thing.
    What is damaged the Hub refuses from then on, until the same content is uploaded again or put back.
    """
    from publisher.hub.checking import check_storage

    with bytes_shown("check") as show:
        found = check_storage(_storage(data_dir), show)
    for line in found.damage:
        click.echo(line)
    amount = f"{found.blobs:,} files of {decimal(found.bytes)}"
    if found.damage:
        raise InfrastructureFault(
            f"{len(found.damage)} of what the Hub's records and {amount} should be is damaged.",
            way_out="Upload the files named above again, or restore them from a backup.",
        )
    click.echo(f"All {amount} are as they were stored.")


@hub.command()
@_DATA
@click.option("--dry-run", is_flag=True, help="only say what would be freed")
@click.option(
    "--grace",
    "grace_minutes",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    help="minutes for which a file without a commit is left alone: a commit may be on its way",
)
def collect(data_dir: Path | None, dry_run: bool, grace_minutes: float) -> None:
    """Delete what no commit has: files of deleted repositories, uploads that broke off.

    Large files that were uploaded to an existing repository wait a day for their commit.
    """
    from publisher.hub.garbage import collect_garbage

    removed = collect_garbage(_storage(data_dir), grace_seconds=grace_minutes * 60, dry_run=dry_run)
    click.echo(f"{'Would free' if dry_run else 'Freed'} {decimal(removed.bytes)} in {removed.files:,} files.")


def _storage(data_dir: Path | None) -> HubStorage:
    """Raises RequestFault where there is no Hub: a mistyped folder is not an empty one."""
    from publisher.hub.storage import HubStorage
    from publisher.settings import settings

    folder = settings().hub_dir if data_dir is None else data_dir / "hub"
    if not folder.is_dir():
        raise RequestFault(f"{folder} does not exist.", way_out="Name the service's folder with --data.")
    return HubStorage(folder)

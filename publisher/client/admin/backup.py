"""`publisher admin backup`: database and embedded Hub, while the service runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.filesize import decimal

from publisher.client.admin.place import chosen_settings, data_option, database_of
from publisher.client.progress import bytes_counted
from publisher.installation.backup import Taking, forget_old

#: the backup is kept, and what the installation itself has lost is not in it
LACKING = 3


@click.command()
@click.argument("place", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@data_option
@click.option("--with-secret", is_flag=True, help="also the signing secret, readable by you alone; see below")
@click.option("--keep", type=click.IntRange(min=1), help="then delete all but the newest KEEP backups in DIR")
def backup(*, place: Path, data_dir: Path | None, with_secret: bool, keep: int | None) -> None:
    """Copy database and embedded Hub to DIR/backups/TIME. Safe while the service and its workers run.

    DIR may hold earlier backups: contents of files that they have are not copied again. Every file is checked as it is
    copied. Not in it: stages of jobs (made again), models and corpora of your own, settings; and the signing secret,
    unless --with-secret is given: without it the restored service needs PUBLISHER_SECRET as it was.

    \b
    Exit codes: 0 whole; 3 there is one, but the Hub itself has lost something (each named); others: there is none.
    """
    chosen = chosen_settings(data_dir)
    with database_of(chosen) as database, bytes_counted("backup") as on_bytes:
        taken = Taking(chosen, database, place.absolute(), on_bytes).run(with_secret=with_secret)
    record = taken.record
    click.echo(
        f"{taken.backup.folder}: {sum(record.tables.values()):,} rows, {record.publications:,} publications, "
        f"{len(record.blobs):,} contents of {decimal(sum(record.blobs.values()))}, of these "
        f"{taken.copied:,} of {decimal(taken.copied_bytes)} new."
    )
    if keep is not None:
        freed = forget_old(place, keep, lambda name: click.echo(f"deleted {name}"))
        click.echo(f"freed {decimal(freed)} of contents that no backup needs.")
    for fault in record.lacking:
        click.echo(f"not in the backup: {fault}", err=True)
    if record.lacking:
        sys.exit(LACKING)

"""`publisher admin restore`: a whole installation from a backup, on this machine or another."""

from __future__ import annotations

from pathlib import Path

import click
from rich.filesize import decimal

from publisher.client.admin.place import chosen_settings, data_option, database_of
from publisher.client.admin.secrets import without_secret
from publisher.client.progress import bytes_counted
from publisher.installation.record import Backup
from publisher.installation.restore import Restoring


@click.command()
@click.argument("place", metavar="BACKUP", type=click.Path(exists=True, file_okay=False, path_type=Path))
@data_option
@click.option("--check", is_flag=True, help="only read the whole backup and compare it with its sha256 list")
@click.option("--new-secret", is_flag=True, help="go on with another signing secret than the service had")
def restore(*, place: Path, data_dir: Path | None, check: bool, new_secret: bool) -> None:
    """Bring BACKUP into an empty database and an empty folder.

    BACKUP is a folder that `backup` was given, for its newest, or one in its backups/. Database and folder are those of
    the settings; both may be of another kind than the service had. A damaged backup, a database with tenants and a Hub
    with repositories are refused. Every file is checked, then every publication. Jobs that were running are queued
    again, at the cost of no try. What needs an older secret or an encryption key that the settings lack is counted, on
    standard error. If it is cut short, no process of the service starts there until the same command has
    come to its end.
    """
    found = Backup.find(place)
    if check:
        found.check_files()
        with bytes_counted("check") as on_bytes:
            found.check_blobs(on_bytes)
        return click.echo(f"{found.folder} is whole.")
    chosen = chosen_settings(data_dir, new=True)
    with bytes_counted("restore") as on_bytes:
        record = Restoring(chosen, found, new_secret=new_secret).run(on_bytes)
    held = f"{len(record.blobs):,} contents of {decimal(sum(record.blobs.values()))}"
    click.echo(
        f"Restored {found.folder.name} to {chosen.data_dir}: {sum(record.tables.values()):,} rows, "
        f"{record.publications:,} publications, {held}."
    )
    for fault in record.lacking:
        click.echo(f"was not in the backup: {fault}", err=True)
    with database_of(chosen) as database, database.read() as session:
        for line in without_secret(session, chosen):
            click.echo(line, err=True)
    return None

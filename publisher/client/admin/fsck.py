"""`publisher admin fsck`: whether database and embedded Hub agree, and are whole."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.filesize import decimal

from publisher.client.admin.place import chosen_settings, data_option, database_of
from publisher.client.progress import bytes_shown
from publisher.hub.checking import check_storage, read_contents
from publisher.hub.storage import HubStorage
from publisher.installation.consistency import lacking, published_here, strangers
from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.publications import published_variants, tenant_ids

#: something is lost or left over
FOUND = 3


@click.command()
@data_option
@click.option("--contents", is_flag=True, help="also read every file and compare its sha256: may take hours")
def fsck(*, data_dir: Path | None, contents: bool) -> None:
    """Check that everything that was published is in the Hub and whole, and that everything there is somebody's.

    Changes nothing, and is safe while the service runs. Without --contents files are compared by their size, and with
    what is known to be damaged; `publisher hub check` reads the Hub alone.

    \b
    Exit codes: 0 all is well; 3 something is lost or left over, with a line for each; others: it could not be checked.
    """
    chosen = chosen_settings(data_dir)
    with database_of(chosen) as database:
        found = [*_tables(chosen), *(_hub(chosen, database, contents=contents) if chosen.hub_is_embedded else ())]
    for line in found:
        click.echo(line)
    if found:
        sys.exit(FOUND)
    click.echo("All is well.")


def _tables(chosen: Settings) -> list[str]:
    standing = migrate.standing(chosen.resolved_database_url)
    if standing.unknown:
        return [f"database: revision {standing.revision} is of a newer version than this one"]
    return [f"database: migration {number} is missing ({what})" for number, what in standing.pending]


def _hub(chosen: Settings, database: Database, *, contents: bool) -> list[str]:
    # the Hub after the database: what is published meanwhile has not been asked for
    with database.engine.connect() as connection:
        published, tenants = published_variants(connection), tenant_ids(connection)
    storage = HubStorage(chosen.hub_dir)
    here = published_here(published, chosen, storage)
    elsewhere = f", {len(published) - len(here):,} lie in other Hubs" if len(published) > len(here) else ""
    click.echo(f"{len(here):,} publications in the embedded Hub{elsewhere}.")
    lost = [str(lack) for lack in lacking(here, storage)]
    return [*_damage(storage, contents=contents), *lost, *strangers(storage, tenants)]


def _damage(storage: HubStorage, *, contents: bool) -> list[str]:
    if not contents:
        return read_contents(storage).damage
    with bytes_shown("fsck") as show:
        checked = check_storage(storage, show)
    click.echo(f"{checked.blobs:,} contents of {decimal(checked.bytes)} were read.")
    return list(checked.damage)

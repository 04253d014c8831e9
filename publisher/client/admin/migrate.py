"""`publisher admin migrate`: the database's tables, apart from the service's start."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from publisher.client.admin.place import chosen_settings, data_option
from publisher.errors import RequestFault
from publisher.store import migrate as tables

#: with --check: there is something to do
PENDING = 3


@click.command()
@data_option
@click.option("--check", is_flag=True, help="only say what is missing; exit code 3 if something is")
def migrate(*, data_dir: Path | None, check: bool) -> None:
    """Bring the database to the tables of this version. Safe while services of this and the last version run.

    The API does so itself when it starts, unless PUBLISHER_MIGRATE_AT_START is false: then it refuses to start until
    this was run. Of several at once one does it, and the others wait.

    \b
    Exit codes: 0 nothing is missing (any more); 3 with --check: something is; others: it failed, nothing was changed.
    """
    url = chosen_settings(data_dir, new=True).resolved_database_url
    before = tables.standing(url)
    if before.unknown:
        raise RequestFault(
            f"The database is at revision {before.revision}, which a newer version than this one made.",
            way_out="Use that version, or restore the backup of before.",
        )
    for revision, what in before.pending:
        click.echo(f"{revision}  {what}")
    if check:
        sys.exit(PENDING if before.pending else 0)
    if before.pending:
        tables.upgrade(url)
    click.echo(f"The database is at revision {tables.standing(url).revision}.")

"""Which installation a command of `publisher admin` is for: the one of the environment's settings, or a folder's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from publisher.errors import RequestFault
from publisher.files.private import umask_of
from publisher.settings import Settings, settings
from publisher.store.database import Database
from publisher.store.migrate import current_revision


def data_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--data FOLDER`, as `publisher up` has it; `data_dir` of the command."""
    return click.option(
        "--data",
        "data_dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="the service's folder, as for `up`  [default: PUBLISHER_DATA_DIR, or data]",
    )(command)


def chosen_settings(data_dir: Path | None, *, new: bool = False) -> Settings:
    """What this process writes from now on is as private as what the service writes.

    Raises RequestFault for a data folder that is not there, unless it may be `new`, or is another user's: files that
    root makes there are closed to the service.
    """
    chosen = settings() if data_dir is None else settings().model_copy(update={"data_dir": data_dir})
    folder = chosen.data_dir
    if not folder.is_dir() and not new:
        raise RequestFault(f"{folder} does not exist.", way_out="Name the service's folder with --data.")
    if folder.is_dir() and (owner := folder.stat().st_uid) != os.geteuid():
        raise RequestFault(
            f"{folder} is user {owner}'s, and this is user {os.geteuid()}.",
            way_out=f"Run it as the service does: sudo -u '#{owner}' publisher admin ….",
        )
    os.umask(umask_of(group=chosen.group_access))
    return chosen


@contextmanager
def database_of(chosen: Settings) -> Iterator[Database]:
    """The service's database, as it is: nothing is migrated. Raises RequestFault where there are no tables."""
    database = Database(chosen.resolved_database_url)
    try:
        with database.engine.connect() as connection:
            if current_revision(connection) is None:
                raise RequestFault(
                    "The database has no tables: no service was ever started over it.",
                    way_out="Is this the service's PUBLISHER_DATABASE_URL, or its folder (--data)?",
                )
        yield database
    finally:
        database.close()

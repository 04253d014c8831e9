"""The data folder of a process of the service, closed to everybody else before anything is written."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from publisher.errors import InfrastructureFault
from publisher.files.private import close_to_others, umask_of
from publisher.files.reading import is_of_the_machine
from publisher.settings import Settings

#: in the data folder as long as `publisher admin restore` is under way, or was cut short
RESTORING = "restoring"

logger = logging.getLogger(__name__)


def keep_private(settings: Settings) -> int:
    """Make the data folder, close what lies in it, and have all that this process and its children write closed, too.

    Returns the process's umask as it was. What belongs to another user is named in the log. Raises InfrastructureFault
    if the folder cannot be made or written to, and where a restore has not come to its end.
    """
    _refuse_half_restored(settings)
    before = os.umask(umask_of(group=settings.group_access))
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        foreign = close_to_others(settings.data_dir, group=settings.group_access)
        _try_to_write(settings.data_dir)
    except OSError as error:
        os.umask(before)
        raise InfrastructureFault(
            f"the data folder {settings.data_dir.absolute()} cannot be used by user {os.geteuid()}: {error.strerror}.",
            way_out="Set PUBLISHER_DATA_DIR (publisher up: --data) to a folder that this user may write to.",
        ) from error
    if foreign:
        logger.warning(
            "%d files and folders of another user may be open to others: %s; chown them to user %d",
            *(len(foreign), foreign[0], os.geteuid()),
        )
    return before


def _refuse_half_restored(settings: Settings) -> None:
    marker = settings.data_dir / RESTORING
    if marker.exists():
        raise InfrastructureFault(
            f"{settings.data_dir} is half restored from backup {marker.read_text()}.",
            way_out="Run the same `publisher admin restore` again: it goes on.",
        )


def _try_to_write(folder: Path) -> None:
    try:
        with NamedTemporaryFile(dir=folder, prefix=".written-"):
            pass
    except OSError as error:
        if not is_of_the_machine(error):  # of that the service tells people while it runs
            raise

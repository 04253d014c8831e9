"""`publisher admin`: what an operator does. One module per command beside this one, named in `_COMMANDS`."""

from __future__ import annotations

import click

from publisher.client.lazy import LazyGroup, Place

_COMMANDS = {
    "backup": Place("Copy database and embedded Hub, while the service runs.", "publisher.client.admin.backup"),
    "gc": Place("Delete remains, and the longest unused stages where there is no room.", entry_point="admin-gc"),
    "restore": Place("Make an installation from a backup.", "publisher.client.admin.restore"),
}


@click.command(cls=LazyGroup, places=_COMMANDS)
def admin() -> None:
    """Look after an installation. Every command is safe while the service and its workers run."""

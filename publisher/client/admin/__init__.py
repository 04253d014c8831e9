"""`publisher admin`: what an operator does. One module per command beside this one, named in `_COMMANDS`."""

from __future__ import annotations

import click

from publisher.client.lazy import LazyGroup, Place

_COMMANDS = {
    "gc": Place("Delete remains, and the longest unused stages where there is no room.", entry_point="admin-gc"),
    "secrets": Place("Which secrets sign and seal; seal anew under the newest.", "publisher.client.admin.secrets"),
}


@click.command(cls=LazyGroup, places=_COMMANDS)
def admin() -> None:
    """Look after an installation. Every command is safe while the service and its workers run."""

"""`publisher admin`: what an operator does. One module per command beside this one, named in `_COMMANDS`."""

from __future__ import annotations

import click

from publisher.client.lazy import LazyGroup, Place

_COMMANDS = {
    "audit": Place("Who did what to which thing, as JSON lines; and prune it.", "publisher.client.admin.audit"),
    "quota": Place("What a tenant may have at once.", "publisher.client.admin.quota"),
    "gc": Place("Delete remains, and the longest unused stages where there is no room.", entry_point="admin-gc"),
    "member": Place("Who belongs to which tenant: add, remove, list.", "publisher.client.admin.member"),
}


@click.command(cls=LazyGroup, places=_COMMANDS)
def admin() -> None:
    """Look after an installation. Every command is safe while the service and its workers run."""

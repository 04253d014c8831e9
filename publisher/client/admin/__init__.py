"""`publisher admin`: what an operator does. One module per command beside this one, named in `_COMMANDS`."""

from __future__ import annotations

import click

from publisher.client.lazy import LazyGroup, Place

_COMMANDS = {
    "gc": Place("Delete remains, and the longest unused stages where there is no room.", entry_point="admin-gc"),
    "key": Place("Make, list and revoke API keys.", "publisher.client.admin.key"),
    "member": Place("Who belongs to which tenant: add, remove, list.", "publisher.client.admin.member"),
    "tenant": Place("Make, list, suspend and resume tenants, and what is theirs.", "publisher.client.admin.tenant"),
}


@click.command(cls=LazyGroup, places=_COMMANDS)
def admin() -> None:
    """Look after an installation. Every command is safe while the service and its workers run."""

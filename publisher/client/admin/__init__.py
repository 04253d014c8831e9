"""`publisher admin`: what an operator does. One module per command beside this one, named in `_COMMANDS`."""

from __future__ import annotations

import click

from publisher.client.lazy import LazyGroup, Place

_COMMANDS = {
    "audit": Place("Who did what to which thing, as JSON lines; and prune it.", "publisher.client.admin.audit"),
    "backup": Place("Copy database and embedded Hub, while the service runs.", "publisher.client.admin.backup"),
    "fsck": Place("Whether database and embedded Hub agree, and are whole.", "publisher.client.admin.fsck"),
    "gc": Place("Delete remains, and the longest unused stages where there is no room.", entry_point="admin-gc"),
    "key": Place("Make, list and revoke API keys.", "publisher.client.admin.key"),
    "member": Place("Who belongs to which tenant: add, remove, list.", "publisher.client.admin.member"),
    "migrate": Place("Bring the database to this version's tables.", "publisher.client.admin.migrate"),
    "quota": Place("What a tenant may have at once.", "publisher.client.admin.quota"),
    "reap": Place("Take jobs from silent workers, send those that wait, now.", "publisher.client.admin.reap"),
    "restore": Place("Make an installation from a backup.", "publisher.client.admin.restore"),
    "secrets": Place("Which secrets sign and seal; seal anew under the newest.", "publisher.client.admin.secrets"),
    "tenant": Place("Make, list, suspend and resume tenants, and what is theirs.", "publisher.client.admin.tenant"),
}


@click.command(cls=LazyGroup, places=_COMMANDS)
def admin() -> None:
    """Look after an installation. Every command is safe while the service and its workers run."""

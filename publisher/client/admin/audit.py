"""`publisher admin audit`: everybody's audit log as JSON lines, and its pruning."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from sqlalchemy import inspect

from publisher.client.admin.installation import installation
from publisher.client.admin.place import data_option
from publisher.store import audit as store
from publisher.store.audit import AuditFilters
from publisher.store.models import AuditEntry
from publisher.store.tenants import find_tenant


class _Time(click.ParamType[float]):
    """Seconds since 1970 from an ISO 8601 time, of UTC where it says no zone, or from seconds."""

    name = "time"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return float(value)
        except ValueError:
            pass
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; 2026-11-28, 2026-11-28T17:00:00+01:00 and 1795880000 are", param, ctx)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


@click.group(invoke_without_command=True)
@data_option
@click.option("--tenant", help="only this tenant's, by name or id")
@click.option("--action", help="job.cancel, or job for all that was done to jobs")
@click.option("--resource", help="an id, or a repository of the embedded Hub")
@click.option("--key", "key_id", help="only what was done by the key with this id")
@click.option("--after", "created_after", type=_Time(), help="then or later: ISO 8601, or seconds since 1970")
@click.option("--before", "created_before", type=_Time(), help="before then")
@click.pass_context
def audit(ctx: click.Context, /, data_dir: Path | None, tenant: str | None, **filters: Any) -> None:
    """Print who did what to which thing, oldest first, a JSON object a line."""
    if ctx.invoked_subcommand is not None:
        return
    with installation(data_dir) as at, at.database.read() as session:
        whose = None if tenant is None else find_tenant(session, tenant).id
        for entry in store.all_entries(session, AuditFilters(**filters), whose):
            click.echo(json.dumps(_as_json(entry), ensure_ascii=False))


@audit.command()
@data_option
@click.option("--before", type=_Time(), required=True, help="ISO 8601, or seconds since 1970")
def prune(before: float, data_dir: Path | None) -> None:
    """Delete what is older; the log says that it was done."""
    with installation(data_dir) as at, at.database.write() as session:
        count = store.prune(session, before)
    click.echo(f"Deleted {count:,} entries.")


def _as_json(entry: AuditEntry) -> dict[str, object]:
    return {column.key: getattr(entry, column.key) for column in inspect(AuditEntry).column_attrs}

"""`publisher admin audit`: everybody's audit log as JSON lines, and its pruning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
from sqlalchemy import inspect

from publisher.settings import settings
from publisher.store import audit as store
from publisher.store.audit import AuditFilters
from publisher.store.database import Database
from publisher.store.models import AuditEntry


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
@click.option("--tenant", help="only this tenant's id")
@click.option("--action", help="job.cancel, or job for all that was done to jobs")
@click.option("--resource", help="an id, or a repository of the embedded Hub")
@click.option("--key", "key_id", help="only what was done by the key with this id")
@click.option("--after", "created_after", type=_Time(), help="then or later: ISO 8601, or seconds since 1970")
@click.option("--before", "created_before", type=_Time(), help="before then")
@click.pass_context
def audit(ctx: click.Context, /, tenant: str | None, **filters: Any) -> None:
    """Print who did what to which thing, oldest first, a JSON object a line."""
    if ctx.invoked_subcommand is not None:
        return
    with _database() as database, database.read() as session:
        for entry in store.all_entries(session, AuditFilters(**filters), tenant):
            click.echo(json.dumps(_as_json(entry), ensure_ascii=False))


@audit.command()
@click.option("--before", type=_Time(), required=True, help="ISO 8601, or seconds since 1970")
def prune(before: float) -> None:
    """Delete what is older; the log says that it was done."""
    with _database() as database, database.write() as session:
        count = store.prune(session, before)
    click.echo(f"Deleted {count:,} entries.")


@contextmanager
def _database() -> Iterator[Database]:
    database = Database(settings().resolved_database_url)
    try:
        yield database
    finally:
        database.close()


def _as_json(entry: AuditEntry) -> dict[str, object]:
    return {column.key: getattr(entry, column.key) for column in inspect(AuditEntry).column_attrs}

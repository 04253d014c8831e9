"""`publisher admin quota`: what a tenant may have at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
from pydantic import ByteSize, TypeAdapter, ValidationError

from publisher.errors import RequestFault, listed
from publisher.settings import settings
from publisher.store import quotas as store
from publisher.store.database import Database
from publisher.store.quotas import QUOTAS, Quota

_WITHOUT, _DEFAULT = "none", "default"
_NUMBER = TypeAdapter(ByteSize)


@click.group()
def quota() -> None:
    """Show and set what a tenant may have at once."""


@quota.command()
@click.argument("tenant")
def show(tenant: str) -> None:
    """Print the limits of TENANT, by name or id."""
    with _database() as database, database.read() as session:
        row = store.named_tenant(session, tenant)
        limits, own = store.limits_of(session, row.id), store.own_limits(session, row.id)
    for name, most in limits.items():
        origin = "its own" if name in own else "default"
        click.echo(f"{name}\t{_WITHOUT if most is None else most}\t{origin}")


@quota.command(name="set")
@click.argument("tenant")
@click.argument("limits", nargs=-1, required=True, metavar="NAME=MOST…")
def set_(tenant: str, limits: Sequence[str]) -> None:
    """Give TENANT limits: `jobs_queued=100`, `jobs_running=none` (without limit), `jobs_queued=default`.

    What it has already stays. Takes effect at once, for requests within seconds.
    """
    wanted = [_parse(each) for each in limits]
    with _database() as database, database.write() as session:
        row = store.named_tenant(session, tenant)
        for each, most in wanted:
            if most == _DEFAULT:
                store.set_default(session, row, each)
            else:
                store.set_limit(session, row, each, None if most == _WITHOUT else int(most))


def _parse(text: str) -> tuple[Quota, str | int]:
    """The quota, and a number, `none` or `default`. Raises RequestFault."""
    name, _, most = text.partition("=")
    if name not in QUOTAS:
        raise RequestFault(f"{name!r} is no quota.", way_out=f"There are {listed(QUOTAS)}.")
    if most in (_WITHOUT, _DEFAULT):
        return QUOTAS[name], most
    try:
        return QUOTAS[name], int(_NUMBER.validate_python(most))
    except ValidationError:
        raise RequestFault(f"{most!r} is no limit.", way_out="Give a number, none or default.") from None


@contextmanager
def _database() -> Iterator[Database]:
    database = Database(settings().resolved_database_url)
    try:
        yield database
    finally:
        database.close()

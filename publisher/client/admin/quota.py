"""`publisher admin quota`: what a tenant may have at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from pydantic import ByteSize, TypeAdapter, ValidationError

from publisher.client.admin.installation import installation
from publisher.client.admin.place import data_option
from publisher.errors import RequestFault, listed
from publisher.store import quotas as store
from publisher.store.quotas import MOST, QUOTAS, Quota
from publisher.store.tenants import find_tenant

_WITHOUT, _DEFAULT = "none", "default"
_NUMBER = TypeAdapter(ByteSize)


@click.group()
def quota() -> None:
    """Show and set what a tenant may have at once."""


@quota.command()
@data_option
@click.argument("tenant")
def show(tenant: str, data_dir: Path | None) -> None:
    """Print the limits of TENANT, by name or id."""
    with installation(data_dir) as at, at.database.read() as session:
        row = find_tenant(session, tenant)
        limits, own = store.limits_of(session, row.id), store.own_limits(session, row.id)
    for name, most in limits.items():
        origin = "its own" if name in own else "default"
        click.echo(f"{name}\t{_WITHOUT if most is None else most}\t{origin}")


@quota.command(name="set")
@data_option
@click.argument("tenant")
@click.argument("limits", nargs=-1, required=True, metavar="NAME=MOST…")
def set_(tenant: str, limits: Sequence[str], data_dir: Path | None) -> None:
    """Give TENANT limits: `jobs_queued=100`, `jobs_running=none` (without limit), `jobs_queued=default`.

    What it has already stays. Takes effect at once, for requests within seconds.
    """
    wanted = [_parse(each) for each in limits]
    with installation(data_dir) as at, at.database.write() as session:
        row = find_tenant(session, tenant)
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
    return QUOTAS[name], _number(QUOTAS[name], most)


def _number(quota: Quota, text: str) -> int:
    try:
        number = int(_NUMBER.validate_python(text))
    except ValidationError:
        raise RequestFault(f"{text!r} is no limit.", way_out="Give a number, none or default.") from None
    if not quota.least <= number <= MOST:
        way_out = f"Give {quota.least} to {MOST}, none or default; publisher admin tenant suspend lets nobody in."
        raise RequestFault(f"{text!r} is no limit of {quota.name}.", way_out=way_out)
    return number

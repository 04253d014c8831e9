"""`publisher admin key`: API keys of any tenant, for whoever runs the installation."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from publisher.client.admin.installation import installation
from publisher.client.admin.place import data_option
from publisher.client.admin.tenant import moment
from publisher.errors import RequestFault
from publisher.keys.scopes import ALL, Scope, parse
from publisher.keys.text import new_key
from publisher.store import keys
from publisher.store.database import clock
from publisher.store.models import ApiKey
from publisher.store.tenants import find_tenant

_DAYS = re.compile(r"(\d{1,5})d")


@click.group()
def key() -> None:
    """Make, list and revoke API keys."""


@key.command()
@data_option
@click.option("--tenant", "tenant_name", default=keys.FIRST_TENANT, show_default=True, help="whose key it is")
@click.option("--name", default="made by the operator", help="to tell keys apart")
@click.option(
    "--scope", "scopes", multiple=True, help=f"what it may do; may be repeated: all, {', '.join(Scope)}  [default: all]"
)
@click.option("--expires", metavar="DAYSd|DATE", help="90d, or 2027-01-31 (its beginning, UTC)  [default: never]")
def create(tenant_name: str, name: str, scopes: tuple[str, ...], expires: str | None, data_dir: Path | None) -> None:
    """Make a key. It is written to stdout, once, and kept nowhere."""
    wanted = [scope for text in scopes or ("all",) for scope in parse(text)]
    made = new_key()
    with installation(data_dir) as at, at.database.write() as session:
        end = None if expires is None else expiry(expires, clock(session))
        owner = find_tenant(session, tenant_name)
        row = keys.add_key(
            session, owner.id, name, made, digests=at.digests, scopes=sorted(set(wanted)), expires_at=end
        )
    click.echo(f"{row.id} of tenant {tenant_name}: {_words(row)}", err=True)
    click.echo(made)


@key.command("list")
@data_option
@click.option("--tenant", "tenant_name", help="only this tenant's")
def list_(tenant_name: str | None, data_dir: Path | None) -> None:
    """List keys, those that work no more too."""
    with installation(data_dir) as at, at.database.read() as session:
        owner = None if tenant_name is None else find_tenant(session, tenant_name).id
        for row, of in keys.keys_of(session, owner):
            click.echo(f"{row.id}  {of.name}  {row.prefix}…  {row.name}  {_words(row)}")


@key.command()
@data_option
@click.argument("id")
def revoke(id: str, data_dir: Path | None) -> None:
    """End a key at once and for good, also a tenant's last one."""
    with installation(data_dir) as at, at.database.write() as session:
        keys.revoke(session, keys.any_key(session, id))
    click.echo(f"{id} is revoked.")


def _words(row: ApiKey) -> str:
    said = ["all scopes" if row.rights == ALL else ", ".join(sorted(row.rights))]
    if row.expires_at is not None:
        said.append(f"until {moment(row.expires_at)}")
    if row.last_used_at is not None:
        said.append(f"last used {moment(row.last_used_at)}")
    if row.revoked_at is not None:
        said.append(f"revoked {moment(row.revoked_at)}")
    return "; ".join(said)


def expiry(text: str, now: float) -> float:
    """Seconds since 1970 of `90d` from `now`, or of a date. RequestFault for what is neither, or has passed."""
    if days := _DAYS.fullmatch(text):
        end = now + timedelta(days=int(days[1])).total_seconds()
    else:
        try:
            given = datetime.fromisoformat(text)
        except ValueError:
            raise RequestFault(f"{text!r} is no end of a key.", way_out="Give 90d, or 2027-01-31.") from None
        end = (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()
    if end <= now:
        raise RequestFault(f"{text} has passed.", way_out="Give an end that is ahead.")
    return end

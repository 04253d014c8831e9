"""`publisher admin member`: people who sign in by OpenID Connect, and the tenants that they belong to."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from publisher.client.admin.installation import installation
from publisher.client.admin.place import data_option
from publisher.people.roles import Role
from publisher.store import keys, members
from publisher.store.models import Membership

_ROLES = "\n\n".join(["\b\nRoles:", *(f"{role:<8} {role.may}" for role in Role)]).replace("\n\n", "\n")


@click.group()
def member() -> None:
    """People who sign in on the dashboard by OpenID Connect: docs/sign-in.md."""


@member.command(epilog=_ROLES)
@data_option
@click.argument("tenant")
@click.argument("who", metavar="EMAIL")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.MEMBER.value,
    show_default=True,
    help="what they may do",
)
def add(tenant: str, who: str, role: str, data_dir: Path | None) -> None:
    """Invite EMAIL to TENANT (its name), or give a member another role.

    Whoever signs in with this address, verified by the provider, is a member from then on. A membership's id (mem_…)
    in place of EMAIL names one that there is.
    """
    with installation(data_dir) as at, at.database.write() as session:
        row = members.add(session, tenant, who, Role(role))
        said = f"{row.email or who} is {role} of {tenant}"
    click.echo(f"{said}." if row.person_id else f"{said} as soon as they sign in at {at.settings.public_url}/login.")
    if at.settings.oidc_issuer is None:
        click.echo("Nobody can sign in yet but by a key: PUBLISHER_OIDC_ISSUER is not set.", err=True)


@member.command()
@data_option
@click.argument("tenant")
@click.argument("who", metavar="EMAIL")
@click.option("--revoke-keys", is_flag=True, help="end the API keys that they made as well, and those made with these")
def remove(tenant: str, who: str, data_dir: Path | None, *, revoke_keys: bool) -> None:
    """End the membership of EMAIL, or of an id (mem_…), in TENANT.

    Their pages and streams end within a second or two, and no rule of PUBLISHER_OIDC_RULES lets them in again. API keys
    that they made go on, since machines may use them, and are named; --revoke-keys ends them as well, but for the last
    one that can make others. Keys that others gave them are not known here.
    """
    with installation(data_dir) as at, at.database.write() as session:
        ended = members.remove(session, tenant, who, also_ended=revoke_keys)
        made = keys.made_by(session, ended[0].tenant_id, [row.id for row in ended])
        revoked = {key.id: revoke_keys and keys.revoke_unless_last(session, key) for key in made}
    click.echo(f"{who} is no member of {tenant} any more ({', '.join(row.id for row in ended)}).")
    for key in made:
        why = " as the last that can make others" if revoke_keys else ""
        goes_on = f"goes on{why}: publisher admin key revoke {key.id}"
        click.echo(f"{key.prefix}… ({key.name!r}), which they made, {'is revoked' if revoked[key.id] else goes_on}")


@member.command("list")
@data_option
@click.argument("tenant", required=False)
def list_members(tenant: str | None, data_dir: Path | None) -> None:
    """All members, or those of TENANT: who they are, their role, and when they signed in last (UTC)."""
    with installation(data_dir) as at, at.database.read() as session:
        rows = members.members(session, tenant)
    table = Table("tenant", "id", "e-mail", "name", "role", "signed in")
    for row in rows:
        table.add_row(row.tenant.name, row.id, *_who(row), row.role, _signed_in(row))
    Console().print(table)


def _who(row: Membership) -> tuple[str, str]:
    person = row.person
    return row.email or (person.email if person else None) or "–", person.name if person else "–"


def _signed_in(row: Membership) -> str:
    if row.ended_at is not None:
        return "ended"
    if row.person is None:
        return "invited"
    return datetime.fromtimestamp(row.person.signed_in_at, UTC).strftime("%Y-%m-%d %H:%M")

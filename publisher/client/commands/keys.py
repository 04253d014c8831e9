"""`publisher keys`: API keys of one's own tenant."""

from __future__ import annotations

import time
from typing import Any

import click

from publisher.client import Client, calls
from publisher.client.commands.by_id import ending
from publisher.client.commands.options import service_options
from publisher.client.output import Column, Form, Output, field, output_options, say, when
from publisher.keys.scopes import Scope

_COLUMNS = (
    Column("id", field("id")),
    Column("name", field("name")),
    Column("begins", lambda key: f"{key['prefix']}…"),
    Column("may", lambda key: "everything" if len(key["scopes"]) == len(Scope) else ", ".join(key["scopes"])),
    Column("made", when("created_at")),
    Column("last used", when("last_used_at")),
    Column("until", when("expires_at")),
    Column("revoked", when("revoked_at")),
)


@click.group()
def keys() -> None:
    """Make, list and revoke API keys of your tenant. The operator's command is `publisher admin key`."""


@keys.command("list")
@service_options
@output_options
def list_(client: Client, output: Output) -> None:
    """List keys, those that work no more too."""
    found = client.every(calls.list_api_keys)
    output.items(found, _COLUMNS, nothing="No keys.")


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="May be repeated; as yours.",
)
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Until when; without end by default.")
@service_options
@output_options
def create(*, client: Client, output: Output, name: str, scopes: tuple[str, ...], days: float | None) -> None:
    """Make a key. It is written to stdout, once, and kept nowhere."""
    end = None if days is None else time.time() + days * 86400
    made: dict[str, Any] = {**client.create_api_key(name=name, scopes=scopes or None, expires_at=end)}
    if output.form is Form.HUMAN:
        say(f"{made['id']}: {', '.join(made['scopes'])}")
        return click.echo(made["key"])
    return output.item(made, (), named_by="key")


keys.add_command(
    ending("revoke", calls.revoke_api_key, "End keys at once and for good.", asked="Revoke", done="is revoked")
)

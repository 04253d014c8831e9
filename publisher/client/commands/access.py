"""`publisher login`, `logout` and `whoami`: where the service is, and as whom it is called."""

from __future__ import annotations

import sys
from urllib.parse import urlsplit

import click

from publisher.client import Client, services
from publisher.client.commands.options import service_options
from publisher.client.output import Column, Output, field, output_options, say, when
from publisher.client.services import LOCAL, Service
from publisher.errors import RequestFault

_ON_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
_ME = (
    Column("tenant", field("tenant_name")),
    Column("key", lambda me: f"{me['key_id']} ({me['key_name']})"),
    Column("may", lambda me: ", ".join(me["scopes"])),
    Column("until", when("expires_at")),
)


@click.command()
@click.argument("url", required=False)
@click.option("--name", help="What to call it in --service; its host by default.")
def login(url: str | None, name: str | None) -> None:
    """Keep URL and API key of a service for later commands, after they were tried.

    The key is asked for without being shown, or read as one line of standard input where that is no terminal.
    """
    url = address(url or click.prompt("Address of the service", default=LOCAL, err=True))
    key = given_key()
    with Client(url, key) as client:
        me = client.get_me()
    service = Service(name or urlsplit(url).netloc, url, key)
    services.write(services.read().with_service(service))
    say(f"Signed in to {url} as {me['key_name']} of {me['tenant_name']}; kept as {service.name} in {services.file()}.")


def address(url: str) -> str:
    """Without what does not belong to it. RequestFault for what is none."""
    url = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in {"http", "https"} or parts.username is not None:
        raise RequestFault(f"{url} is no address of a service.", way_out=f"It looks like https://host, or {LOCAL}.")
    if parts.scheme == "http" and host not in _ON_THIS_MACHINE:
        say(f"Note: {url} is not encrypted: whoever is between you and {host} can read the key.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def given_key() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("API key", hide_input=True, err=True)).strip()
    key = sys.stdin.readline().strip()
    if not key:
        raise click.UsageError("standard input holds no API key: give it one line, or call this at a terminal.")
    return key


@click.command()
@click.option("--service", metavar="NAME", help="Which; by default the one that was signed in to last.")
@click.option("--revoke", is_flag=True, help="End the key at the service, too, at once and for good.")
def logout(service: str | None, revoke: bool) -> None:
    """Forget the key of a service."""
    kept = services.read()
    name = service or kept.default
    if name is None:
        return say("No service is kept.")
    found = kept.named(name)
    if revoke:
        with Client(found.url, found.key) as client:
            client.revoke_api_key(client.get_me()["key_id"])
    services.write(kept.without(name))
    return say(f"Forgot the key of {name} ({found.url}){', which works no more' if revoke else ''}.")


@click.command()
@service_options
@output_options
def whoami(client: Client, output: Output) -> None:
    """Say which service is called, as which tenant, and what the key may do."""
    me = client.get_me()
    output.text(client.url)
    output.item(me, _ME, named_by="tenant_name")

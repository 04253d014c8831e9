"""Commands that every kind of thing has: one is shown, some are ended, by their ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from publisher.client import Client
from publisher.client.call import Call
from publisher.client.commands.options import service_options, sure, yes_option
from publisher.client.output import Column, Output, output_options, say

_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")
Build = Callable[[str], Call[Any]]


def showing(build: Build, lines: Sequence[Column], words: str) -> click.Command:
    """`show ID`"""

    @click.argument("id")
    @service_options
    @output_options
    def show(client: Client, output: Output, id: str) -> None:
        output.item(client.send(build(id)), lines)

    return click.command("show", help=words)(show)


def steering(name: str, build: Build, columns: Sequence[Column], words: str) -> click.Command:
    """A command that asks the same of each, and shows how it stands then."""

    @_ids
    @service_options
    @output_options
    def steer(client: Client, output: Output, ids: tuple[str, ...]) -> None:
        output.items((client.send(build(id)) for id in ids), columns, nothing="")

    return click.command(name, help=words)(steer)


def ending(name: str, build: Build, words: str, *, asked: str = "Forget", done: str = "is forgotten") -> click.Command:
    """A command after which they are gone; it asks before."""

    @_ids
    @yes_option
    @service_options
    def end(client: Client, ids: tuple[str, ...], yes: bool) -> None:
        end_each(client, ids, build, asked=f"{asked} {', '.join(ids)}", done=done, yes=yes)

    return click.command(name, help=words)(end)


def end_each(
    client: Client, ids: Sequence[str], build: Build, *, asked: str, done: str = "is forgotten", yes: bool
) -> None:
    sure(asked, yes=yes)
    for id in ids:
        client.send(build(id))
        say(f"{id} {done}.")

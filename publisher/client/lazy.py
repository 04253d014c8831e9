"""Groups of commands that load a command's module when it is called: `--help` needs neither torch nor a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from publisher.client.announced import announced


@dataclass(frozen=True)
class Place:
    """Where a command is found: the attribute of its name in `module`, or without one the entry point `entry_point` of
    `publisher.commands` ("admin-gc", typed "admin gc")."""

    summary: str
    module: str | None = None
    entry_point: str | None = None


class LazyGroup(click.Group):
    """Its commands are `places`, by the name that people type."""

    def __init__(self, *, places: Mapping[str, Place], **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._places)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in sorted(self._places.items())])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        place = self._places.get(name)
        if place is None:
            return None
        if place.module is None:
            entry_point = place.entry_point or name
            return announced(entry_point, entry_point.replace("-", " ") if place.entry_point else None)
        return self._loaded(place.module, name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """By name alone: to load every command at a tab would take seconds."""
        found = [
            CompletionItem(name, help=place.summary)
            for name, place in sorted(self._places.items())
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def _loaded(self, module: str, name: str) -> click.Command:
        loaded = getattr(import_module(module), name.replace("-", "_"))
        assert isinstance(loaded, click.Command)
        return loaded

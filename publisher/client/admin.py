"""`publisher admin`: what an operator does on a machine with workers."""

from __future__ import annotations

import click

from publisher.client.announced import announced

#: of the worker's code, which knows the stages
_COMMANDS = {"gc": "Delete remains, and the longest unused stages where there is no room."}


class _OfTheWorker(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return announced(f"admin-{name}", f"admin {name}") if name in _COMMANDS else None


@click.command(cls=_OfTheWorker)
def admin() -> None:
    """Free room on a machine with workers. Safe while they run."""

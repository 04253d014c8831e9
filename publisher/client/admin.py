"""`publisher admin`: what an operator does on a machine with workers."""

from __future__ import annotations

import click

from publisher.client.announced import announced


class _Announced(click.Group):
    """`gc` is the worker's: it knows the stages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["gc"]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return announced(f"admin-{name}") if name == "gc" else None


@click.command(cls=_Announced)
def admin() -> None:
    """Free room on a machine with workers. Safe while they run."""

"""The `publisher` command: one group; commands that need the worker's code announce themselves by entry point."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module

import click

from publisher import __version__
from publisher.client.announced import announced
from publisher.errors import PublisherError


@dataclass(frozen=True)
class _Place:
    """Where a command is found; without a module it comes from the entry points `publisher.commands`."""

    summary: str
    module: str | None = None


_COMMANDS = {
    "admin": _Place("Free room: stages and remains that no job needs.", "publisher.client.admin"),
    "build": _Place("Make a checkpoint here, without service, database or broker."),
    "demo": _Place("The whole path on a real model, start to finish.", "publisher.client.demo.command"),
    "families": _Place("Which families of models can be pruned, and why not.", "publisher.client.families"),
    "follow": _Place("Watch a job until it ends.", "publisher.client.follow"),
    "hub": _Place("Check the embedded Hub's files, free what is not needed.", "publisher.client.hub"),
    "plan": _Place("What a recipe will cost and give, from a config.json alone.", "publisher.client.plan"),
    "recover": _Place("Take an adapter trained on a checkpoint to the base model.", "publisher.client.recover"),
    "up": _Place("Start API, dashboard, Hub and a worker on this machine.", "publisher.client.up"),
    "verify": _Place("Whether every file of a checkpoint is as it was published.", "publisher.client.verify"),
}


class _Commands(click.Group):
    """Loads a command's module when it is called, so that `publisher --help` needs neither torch nor a server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in sorted(_COMMANDS.items())])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        place = _COMMANDS.get(name)
        if place is None:
            return None
        loaded = announced(name) if place.module is None else getattr(import_module(place.module), name)
        assert isinstance(loaded, click.Command)
        return loaded


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="publisher")
def cli() -> None:
    """Prune, align, quantize and publish large models that LoRA adapters recover onto."""


def main() -> None:
    try:
        cli()
    except PublisherError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""The `publisher` command: one group; commands that need the worker's code announce themselves by entry point."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import click

from publisher import __version__
from publisher.errors import PublisherError


class _Commands(click.Group):
    """Loads a command's module when it is called, so that `publisher --help` needs neither torch nor a server."""

    builtin = {
        "up": "publisher.client.up:up",
        "plan": "publisher.client.plan:plan",
        "recover": "publisher.client.recover:recover",
        "follow": "publisher.client.follow:follow",
        "demo": "publisher.client.demo.command:demo",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.builtin.keys() | entry_points(group="publisher.commands").names)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in self.builtin:
            module, _, attribute = self.builtin[name].partition(":")
            loaded: object = getattr(__import__(module, fromlist=[attribute]), attribute)
        else:
            found = entry_points(group="publisher.commands", name=name)
            loaded = found[name].load() if name in found.names else None
        return loaded if isinstance(loaded, click.Command) else None


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

"""The `publisher` command: one group; commands that need the worker's code announce themselves by entry point."""

from __future__ import annotations

import sys

import click

from publisher import __version__
from publisher.client.lazy import LazyGroup, Place
from publisher.errors import PublisherError

_COMMANDS = {
    "admin": Place("Look after an installation: free room, and more.", "publisher.client.admin"),
    "build": Place("Make a checkpoint here, without service, database or broker."),
    "demo": Place("The whole path on a real model, start to finish.", "publisher.client.demo.command"),
    "families": Place("Which families of models can be pruned, and why not.", "publisher.client.families"),
    "follow": Place("Watch a job until it ends.", "publisher.client.follow"),
    "hub": Place("Check the embedded Hub's files, free what is not needed.", "publisher.client.hub"),
    "merge": Place("Merge an adapter into a copy of the base model.", "publisher.client.merge"),
    "plan": Place("What a recipe will cost and give, from a config.json alone.", "publisher.client.plan"),
    "recover": Place("Take an adapter trained on a checkpoint to the base model.", "publisher.client.recover"),
    "up": Place("Start API, dashboard, Hub and a worker on this machine.", "publisher.client.up"),
    "verify": Place("Whether every file of a checkpoint is as it was published.", "publisher.client.verify"),
}


@click.command(cls=LazyGroup, places=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
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

"""The `publisher` command: one group; commands that need the worker's code announce themselves by entry point."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from publisher import __version__
from publisher.client.exit_codes import Exit, Told
from publisher.client.extras import missing_of
from publisher.client.lazy import LazyGroup, Place
from publisher.errors import PublisherError

_COMMANDS = {
    "admin": Place("Look after an installation: free room, and more.", "publisher.client.admin"),
    "base-models": Place("Register, list and forget base models.", "publisher.client.commands.base_models"),
    "build": Place("Make a checkpoint here, without service, database or broker."),
    "corpora": Place("Register, list and forget text.", "publisher.client.commands.corpora"),
    "demo": Place("The whole path on a real model, start to finish.", "publisher.client.demo.command"),
    "families": Place("Which families of models can be pruned, and why not.", "publisher.client.families"),
    "follow": Place("Watch a job until it ends; also `jobs watch`.", "publisher.client.follow"),
    "hub": Place("Check the embedded Hub's files, free what is not needed.", "publisher.client.hub"),
    "jobs": Place("List, watch and steer jobs.", "publisher.client.commands.jobs"),
    "keys": Place("Make, list and revoke API keys.", "publisher.client.commands.keys"),
    "login": Place("Keep URL and API key of a service for later commands.", "publisher.client.commands.access"),
    "logout": Place("Forget the key of a service.", "publisher.client.commands.access"),
    "merge": Place("Merge an adapter into a copy of the base model.", "publisher.client.merge"),
    "plan": Place("What a recipe will cost and give, before anything runs.", "publisher.client.plan"),
    "pull": Place("Fetch and check what a variant published.", "publisher.client.commands.pull"),
    "rebuild": Place("Make a checkpoint again, and say whether it comes out the same."),
    "recover": Place("Take an adapter trained on a checkpoint to the base model.", "publisher.client.recover"),
    "submit": Place("Order a variant.", "publisher.client.commands.submit"),
    "sweep": Place("Order a variant for each of several values.", "publisher.client.commands.submit"),
    "sweeps": Place("List, compare, cancel and forget sweeps.", "publisher.client.commands.sweeps"),
    "train": Place("Train a LoRA on a checkpoint with TRL.", "publisher.client.train.command"),
    "up": Place("Start API, dashboard, Hub and a worker on this machine.", "publisher.client.up"),
    "variants": Place("List, show and forget variants.", "publisher.client.commands.variants"),
    "verify": Place("Whether every file of a checkpoint is as it was published.", "publisher.client.verify"),
    "whoami": Place("Which service is called, as whom.", "publisher.client.commands.access"),
    "workers": Place("Who computes.", "publisher.client.commands.workers"),
}


@click.command(cls=LazyGroup, places=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="publisher")
def cli() -> None:
    """Prune, align, quantize and publish large models that LoRA adapters recover onto."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Ends the process with a status of publisher.client.exit_codes.Exit."""
    sys.exit(status(arguments))


def status(arguments: Sequence[str] | None) -> int:
    """Of the command, when it has ended; what went wrong is a line on stderr then."""
    try:
        # what a command ends with by click's own means, as --help does with 0, is answered
        ended = cli.main(arguments, prog_name="publisher", standalone_mode=False)
        return ended if isinstance(ended, int) else Exit.RIGHT
    except PublisherError as error:
        refused: click.ClickException = Told(error)
    except ModuleNotFoundError as error:
        missing = missing_of(error)
        if missing is None:
            raise
        refused = Told(missing)
    except click.ClickException as error:
        refused = error
    except click.Abort:  # Ctrl-C, or no to a question
        click.echo("Stopped.", err=True)
        return Exit.STOPPED
    refused.show()
    return refused.exit_code


if __name__ == "__main__":
    main()

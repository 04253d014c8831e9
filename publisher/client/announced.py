"""Commands of the worker's code, which announces them by entry point: publisher/ never imports worker/."""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec

import click


def announced(name: str, typed: str | None = None) -> click.Command:
    """The command ("families-check": what --check of families does; `typed`: where people type it otherwise).

    ClickException if only the client is installed.
    """
    found = entry_points(group="publisher.commands", name=name)
    if not found or find_spec("worker") is None:  # an image of the API has the entry point and no worker/
        typed = typed or name.replace("-", " --")
        raise click.ClickException(f"`publisher {typed}` needs the worker's code, which is not installed here.")
    loaded = found[name].load()
    assert isinstance(loaded, click.Command)
    return loaded

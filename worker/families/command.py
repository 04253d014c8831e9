"""`publisher families --check`: the oracle run anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import transformers
from rich.console import Console
from rich.progress import Progress
from transformers.utils import logging as transformers_logging

import publisher
from publisher.client.families import chosen, show
from publisher.families.known import DATA_FILE, Families, Family, write_families
from worker.families.oracle import examine
from worker.families.tiny import causal_families


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True)
@click.option("--write", is_flag=True)
def check(*, names: tuple[str, ...], as_json: bool, write: bool) -> None:
    """Examine families (all without names), show what was found, and replace the package's data file with it."""
    asked = list(dict.fromkeys(names)) or causal_families()
    chosen(_every_family(), asked)
    found = Families(transformers=transformers.__version__, families=list(_examined(asked)))
    show(found, as_json=as_json)
    if write:
        write_families(found, Path(publisher.__file__).parent / DATA_FILE)


def _every_family() -> Families:
    """Of the installed transformers, nothing known of any."""
    return Families(
        transformers=transformers.__version__,
        families=[Family(family=name, model_class="", supported=False, units=[]) for name in causal_families()],
    )


def _examined(names: Sequence[str]) -> Iterator[Family]:
    """One by one, with a bar on standard error."""
    transformers_logging.set_verbosity_error()
    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=len(names))
        for name in names:
            bars.update(task, description=name)
            yield examine(name)
            bars.advance(task)

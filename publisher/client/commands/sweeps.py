"""`publisher sweeps`: variants that were ordered together, side by side."""

from __future__ import annotations

from collections.abc import Callable

import click

from publisher.client import Client, calls
from publisher.client.commands.by_id import ending, steering
from publisher.client.commands.options import service_options, some
from publisher.client.output import Column, Form, Item, Output, field, output_options, pairs, when

_COLUMNS = (
    Column("id", field("id")),
    Column("base model", field("base_model_id")),
    Column("varied", lambda sweep: " ".join(sweep["vary"])),
    Column("jobs", lambda sweep: " ".join(f"{count} {state}" for state, count in sweep["states"].items() if count)),
    Column("labels", pairs("labels")),
    Column("ordered", when("created_at")),
)


def _times(name: str) -> Callable[[Item], str]:
    return lambda variant: "" if variant[name] is None else f"{variant[name]:.2f}"


def _share(variant: Item) -> str:
    return "" if variant["gain_retained"] is None else f"{variant['gain_retained']:.0%}"


_VARIANTS = (
    Column("id", field("id")),
    Column("values", lambda variant: " ".join(f"{path}={value}" for path, value in variant["values"].items())),
    Column("repository", field("repo_id")),
    Column("job", field("state")),
    Column("parameters ÷", _times("reduction"), right=True),
    Column("bytes ÷", _times("bytes_reduction"), right=True),
    Column("certificate", field("verdict")),
    Column("gain", _times("gain"), right=True),
    Column("gain retained", _share, right=True),
)


@click.group()
def sweeps() -> None:
    """List, compare, cancel and forget sweeps."""


@sweeps.command("list")
@click.option("--limit", "most", type=click.IntRange(min=1), help="So many at most; all by default.")
@service_options
@output_options
def list_(client: Client, output: Output, most: int | None) -> None:
    """List sweeps, newest first."""
    found = some(client, calls.list_sweeps, most)
    output.items(found, _COLUMNS, nothing="No sweeps. `publisher sweep` orders one.")


@sweeps.command()
@click.argument("id")
@service_options
@output_options
def show(client: Client, output: Output, id: str) -> None:
    """Show a sweep's variants beside each other: what differs, how far they are and what they are worth.

    With --json it is one document, with the recipe, too.
    """
    sweep = client.get_sweep(id)
    if output.form is Form.JSON:
        output.item(sweep, ())
    else:
        output.items(sweep["variants"], _VARIANTS, nothing="All of its variants were deleted.")


for _each in (
    steering("cancel", calls.cancel_sweep, _COLUMNS, "Stop all jobs of sweeps that have not ended."),
    ending("delete", calls.delete_sweep, "Forget sweeps whose variants are all deleted."),
):
    sweeps.add_command(_each)

"""`publisher variants`: what was made, and where it lies."""

from __future__ import annotations

from typing import Any

import click
from rich.filesize import decimal

from publisher.client import Client, calls
from publisher.client.commands.options import list_options, service_options, some, sure, yes_option
from publisher.client.output import Column, Item, Output, field, output_options, pairs, say, when
from publisher.store.states import JobState


def _ratio(variant: Item) -> str:
    recipe = variant["recipe"]
    return "" if recipe is None else f"{recipe['pruning'].get('method', '')} {recipe['pruning'].get('ratio', '')}"


def _state(variant: Item) -> str:
    return str(variant["job"]["state"]) if variant["job"] else ""


def _verdict(variant: Item) -> str:
    return str(variant["certificate"]["verdict"]) if variant["certificate"] else ""


_COLUMNS = (
    Column("id", field("id")),
    Column("repository", lambda variant: variant["publish"]["repo_id"]),
    Column("pruned", _ratio),
    Column("job", _state),
    Column("certificate", _verdict),
    Column("labels", pairs("labels")),
    Column("ordered", when("created_at")),
)
_LINES = (
    *_COLUMNS,
    Column("base model", field("base_model_id")),
    Column("its job", lambda variant: variant["job"]["id"] if variant["job"] else ""),
    Column("sweep", field("sweep_id")),
    Column("published", lambda variant: variant["publication"]["url"] if variant["publication"] else ""),
    Column("commit", lambda variant: variant["publication"]["commit"] if variant["publication"] else ""),
    Column("problem", lambda variant: variant["recipe_problem"] or variant["manifest_problem"] or ""),
)
_FILES = (
    Column("path", field("path")),
    Column("size", lambda file: decimal(file["size"]), right=True),
    Column("sha256", field("sha256")),
)


@click.group()
def variants() -> None:
    """List, show and forget variants."""


@variants.command("list")
@click.option(
    "--state",
    multiple=True,
    type=click.Choice([state.value for state in JobState]),
    help="Of its job; may be repeated.",
)
@click.option("--base-model", "base_model_id", metavar="ID", help="Only of this base model.")
@click.option("--repo", "repo_id", metavar="ORG/NAME", help="Only those published there.")
@click.option("--sweep", "sweep_id", metavar="ID", help="Only of this sweep.")
@list_options
@service_options
@output_options
def list_(
    *,
    client: Client,
    output: Output,
    filters: dict[str, Any],
    most: int | None,
    state: tuple[str, ...],
    **whose: str | None,
) -> None:
    """List variants, newest first."""
    found = some(client, calls.list_variants, most, state=list(state) or None, **whose, **filters)
    output.items(found, _COLUMNS, nothing="No variants. `publisher submit` orders one.")


@variants.command()
@click.argument("id")
@service_options
@output_options
def show(client: Client, output: Output, id: str) -> None:
    """Show a variant, its job and where it is published; with --json its recipe and manifest, too."""
    output.item(client.get_variant(id), _LINES)


@variants.command()
@click.argument("id")
@service_options
@output_options
def files(client: Client, output: Output, id: str) -> None:
    """List the files of its checkpoint, with size and sha256."""
    output.items(client.list_variant_files(id)["items"], _FILES, nothing="No files.", named_by="path")


@variants.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--publication", type=click.Choice(["keep", "delete"]), default="keep", show_default=True)
@yes_option
@service_options
def delete(*, client: Client, ids: tuple[str, ...], publication: str, yes: bool) -> None:
    """Forget variants and their jobs, which must have ended; --publication delete takes back what was published."""
    of_theirs = " and delete what they published" if publication == "delete" else ""
    sure(f"Forget {', '.join(ids)}{of_theirs}", yes=yes)
    for id in ids:
        client.delete_variant(id, publication="delete" if publication == "delete" else "keep")
        say(f"{id} is forgotten.")

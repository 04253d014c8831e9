"""`publisher variants`: what was made, and where it lies."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import click
from rich.filesize import decimal

from publisher.client import Client, calls
from publisher.client.commands.by_id import end_each, showing
from publisher.client.commands.options import list_options, service_options, some, whose_options, yes_option
from publisher.client.output import Column, Item, Output, field, output_options, pairs, when


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
@list_options
@whose_options
@service_options
@output_options
def list_(client: Client, output: Output, filters: dict[str, Any], most: int | None) -> None:
    """List variants, newest first."""
    found = some(client, calls.list_variants, most, **filters)
    output.items(found, _COLUMNS, nothing="No variants. `publisher submit` orders one.")


variants.add_command(
    showing(
        calls.get_variant,
        _LINES,
        "Show a variant, its job and where it is published; with --json its recipe and manifest, too.",
    )
)


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
def delete(*, client: Client, ids: tuple[str, ...], publication: Literal["keep", "delete"], yes: bool) -> None:
    """Forget variants and their jobs, which must have ended; --publication delete takes back what was published."""
    of_theirs = " and delete what they published" if publication == "delete" else ""
    build = partial(calls.delete_variant, publication=publication)
    end_each(client, ids, build, asked=f"Forget {', '.join(ids)}{of_theirs}", yes=yes)

"""`publisher base-models`: the large models that variants are made of."""

from __future__ import annotations

import re
from typing import Any

import click

from publisher.client import Client, calls
from publisher.client.commands.by_id import ending, showing
from publisher.client.commands.options import (
    folder,
    is_folder,
    label_option,
    labels_of,
    list_options,
    service_options,
    some,
)
from publisher.client.output import Column, Item, Output, count, field, output_options, pairs, when
from publisher.errors import NotFound

#: of a base model; some repositories of the Hub have no slash in their name
_ID = re.compile(r"[a-z]+_[0-9a-f]{22}")
_COLUMNS = (
    Column("id", field("id")),
    Column("model", lambda base: base.get("published_as") or base["repo_id"]),
    Column("family", lambda base: base["geometry"]["family"]),
    Column("parameters", count("parameters"), right=True),
    Column("layers", lambda base: str(base["geometry"]["layers"]), right=True),
    Column("labels", pairs("labels")),
    Column("registered", when("created_at")),
)
_LINES = (
    *_COLUMNS,
    Column("revision", field("revision")),
    Column("path", field("path")),
    Column("dtype", field("dtype")),
    Column("bytes", count("bytes")),
    Column("notes", lambda base: "\n".join(base.get("notes") or ())),
)


@click.group("base-models")
def base_models() -> None:
    """Register, show and forget base models."""


@base_models.command("list")
@click.option("--repo", "repo_id", metavar="ORG/NAME", help="Only those of this repository.")
@list_options
@service_options
@output_options
def list_(*, client: Client, output: Output, filters: dict[str, Any], most: int | None, repo_id: str | None) -> None:
    """List base models, newest first."""
    found = some(client, calls.list_base_models, most, repo_id=repo_id, **filters)
    output.items(found, _COLUMNS, nothing="No base models. `publisher base-models add` registers one.")


@base_models.command()
@click.argument("source", metavar="ORG/NAME|FOLDER")
@click.option("--revision", help="Branch, tag or commit of the repository.")
@click.option("--published-as", metavar="ORG/NAME", help="The name under which others get the model in FOLDER.")
@label_option
@service_options
@output_options
def add(
    *,
    client: Client,
    output: Output,
    source: str,
    revision: str | None,
    published_as: str | None,
    labels: tuple[str, ...],
) -> None:
    """Register a model: a repository of the Hub, or a FOLDER on the service's machine."""
    where: dict[str, Any] = (
        {"path": folder(source), "published_as": published_as}
        if is_folder(source)
        else {
            "repo_id": source,
            "revision": revision,
        }
    )
    output.item(client.register_base_model(**where, labels=labels_of(labels)), _LINES)


base_models.add_command(showing(calls.get_base_model, _LINES, "Show a base model."))
base_models.add_command(
    ending("delete", calls.delete_base_model, "Forget base models that no variant is made of. Their files stay.")
)


def base_named(client: Client, name: str) -> Item:
    """By its id, or the newest of a repository's name."""
    if _ID.fullmatch(name):
        return client.get_base_model(name)
    for base in client.every(calls.list_base_models):
        if name in {base["repo_id"], base.get("published_as")}:
            return base
    raise NotFound(f"no base model is registered as {name}.", way_out="`publisher base-models add` registers it.")

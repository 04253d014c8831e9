"""`publisher corpora`: text for calibration, alignment and evaluation."""

from __future__ import annotations

from typing import Any

import click

from publisher.client import Client, calls
from publisher.client.call import OMIT
from publisher.client.commands.by_id import ending
from publisher.client.commands.options import folder, label_option, labels_of, list_options, service_options, some
from publisher.client.output import Column, Output, field, output_options, pairs, when

_DATASET = "hf://"
_COLUMNS = (
    Column("id", field("id")),
    Column("name", field("name")),
    Column("text", lambda corpus: corpus["path"] or f"{_DATASET}{corpus['dataset']}"),
    Column("documents", lambda corpus: f"{corpus['facts']['documents']:,}" if corpus["facts"] else "", right=True),
    Column("labels", pairs("labels")),
    Column("registered", when("created_at")),
)


@click.group()
def corpora() -> None:
    """Register, list and forget text."""


@corpora.command("list")
@list_options
@service_options
@output_options
def list_(*, client: Client, output: Output, filters: dict[str, Any], most: int | None) -> None:
    """List corpora, newest first."""
    found = some(client, calls.list_corpora, most, **filters)
    output.items(found, _COLUMNS, nothing="No corpora. `publisher corpora add` registers one.")


@corpora.command()
@click.argument("name")
@click.argument("source", metavar="PATH|hf://OWNER/NAME")
@click.option("--text-field", help="Column that holds the text.")
@click.option("--held-out-fraction", type=click.FloatRange(0, 1), help="Share that is only used for evaluation.")
@click.option("--config", help="Of a dataset: its configuration.")
@click.option("--split", help="Of a dataset.")
@click.option("--revision", help="Of a dataset: branch, tag or commit.")
@click.option("--documents", type=click.IntRange(min=1), help="Of a dataset: rows read from its beginning.")
@label_option
@service_options
@output_options
def add(
    *,
    client: Client,
    output: Output,
    name: str,
    source: str,
    labels: tuple[str, ...],
    **given: str | int | float | None,
) -> None:
    """Register text as NAME, which recipes call it by: files at PATH on the service's machine, or a dataset of the
    Hub."""
    is_dataset = source.startswith(_DATASET)
    where: dict[str, Any] = {"dataset": source.removeprefix(_DATASET)} if is_dataset else {"path": folder(source)}
    said: dict[str, Any] = {option: OMIT if value is None else value for option, value in given.items()}
    output.item(client.register_corpus(name=name, **where, **said, labels=labels_of(labels)), _COLUMNS)


corpora.add_command(
    ending("delete", calls.delete_corpus, "Forget corpora that no variant in work reads. Their files stay.")
)

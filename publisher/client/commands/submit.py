"""`publisher submit` and `publisher sweep`: order variants."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from publisher.client import Client
from publisher.client.commands.base_models import base_named
from publisher.client.commands.options import label_option, labels_of, service_options
from publisher.client.follow import watch
from publisher.client.output import Column, Output, field, output_options, pairs, say
from publisher.errors import RequestFault
from publisher.files.json_object import read_object

_RECIPE = click.Path(exists=True, dir_okay=False, path_type=Path)
_VARIANT = (
    Column("variant", field("id")),
    Column("job", lambda variant: variant["job"]["id"]),
    Column("repository", lambda variant: variant["publish"]["repo_id"]),
    Column("labels", pairs("labels")),
)
_OF_SWEEP = (
    Column("variant", field("id")),
    Column("job", field("job_id")),
    Column("values", pairs("values")),
    Column("repository", field("repo_id")),
)


class Setting(click.ParamType[tuple[str, Any]]):
    """`pruning.ratio=0.5`: a field of the recipe and its value, JSON or a word."""

    name = "field=value"
    example = "pruning.ratio=0.5"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[str, Any]:
        path, equals, text = str(value).partition("=")
        if not equals or not path:
            self.fail(f"{value!r} is not {self.name.upper()}, as {self.example}.", parameter, context)
        return path, self.value(text)

    def value(self, text: str) -> Any:
        return _value(text)


class Values(Setting):
    """`pruning.ratio=0.35,0.5`: a field of the recipe and its values, JSON or words."""

    name = "field=value,value"
    example = "pruning.ratio=0.35,0.5"

    def value(self, text: str) -> list[Any]:
        whole = _value(text)
        return whole if isinstance(whole, list) else [_value(each) for each in text.split(",")]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def recipe_of(file: Path | None, settings: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """Of a file, with fields set; the service says what is wrong with it."""
    recipe = {} if file is None else copy.deepcopy(dict(read_object(file)))
    for path, value in settings:
        *parents, last = path.split(".")
        at: Any = recipe
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise RequestFault(f"--set {path}: {parent} of the recipe has no fields.")
        at[last] = value
    if not recipe:
        raise click.UsageError("there is no recipe: name a file with --recipe, or fields with --set.")
    return recipe


recipe_option = click.option("--recipe", "recipe_file", type=_RECIPE, help="The recipe, as JSON.")
set_option = click.option(
    "--set", "settings", multiple=True, type=Setting(), help="A field of the recipe, as pruning.ratio=0.5; repeatable."
)
_private = click.option("--private", is_flag=True, help="Only its owners may see the repository.")
_priority = click.option("--priority", type=int, default=0, show_default=True, help="Higher is taken first.")
_once = click.option(
    "--idempotency-key", metavar="KEY", help="The same key and order again give the same answer, and nothing twice."
)


@click.command()
@click.argument("base", metavar="BASE_ID|ORG/NAME")
@recipe_option
@set_option
@click.option("--publish", "repo_id", required=True, metavar="ORG/NAME", help="Where the checkpoint goes.")
@_private
@_priority
@_once
@label_option
@click.option("--watch", "watches", is_flag=True, help="Show its job until it ends.")
@service_options
@output_options
def submit(
    *,
    client: Client,
    output: Output,
    base: str,
    recipe_file: Path | None,
    settings: tuple[tuple[str, Any], ...],
    repo_id: str,
    private: bool,
    priority: int,
    idempotency_key: str | None,
    labels: tuple[str, ...],
    watches: bool,
) -> None:
    """Order a variant of a registered base model; its job prunes, aligns, quantizes, evaluates and publishes."""
    made = client.create_variant(
        base_model_id=base_named(client, base)["id"],
        recipe=recipe_of(recipe_file, settings),
        publish={"repo_id": repo_id, "private": private},
        priority=priority,
        labels=labels_of(labels),
        idempotency_key=idempotency_key,
    )
    output.item(made, _VARIANT)
    job = made["job"]
    if watches and job is not None:
        watch(client, job["id"])
    elif job is not None:
        output.text(f"`publisher follow {job['id']}` shows how it goes.")


@click.command()
@click.argument("base", metavar="BASE_ID|ORG/NAME")
@recipe_option
@set_option
@click.option(
    "--vary",
    required=True,
    multiple=True,
    type=Values(),
    help="Values of a field, as pruning.ratio=0.35,0.5; repeatable.",
)
@click.option("--publish", "repo_id", required=True, metavar="ORG/NAME-{ratio}", help="{ratio}, {n}: what differs.")
@_private
@_priority
@_once
@label_option
@service_options
@output_options
def sweep(
    *,
    client: Client,
    output: Output,
    base: str,
    recipe_file: Path | None,
    settings: tuple[tuple[str, Any], ...],
    vary: tuple[tuple[str, list[Any]], ...],
    repo_id: str,
    private: bool,
    priority: int,
    idempotency_key: str | None,
    labels: tuple[str, ...],
) -> None:
    """Order a variant for each combination of values: all, or none."""
    varied: Mapping[str, list[Any]] = dict(vary)
    made = client.create_sweep(
        base_model_id=base_named(client, base)["id"],
        recipe=recipe_of(recipe_file, settings),
        vary=varied,
        publish={"repo_id": repo_id, "private": private},
        priority=priority,
        labels=labels_of(labels),
        idempotency_key=idempotency_key,
    )
    say(f"sweep {made['id']}: {len(made['variants'])} variants")
    output.items(made["variants"], _OF_SWEEP, nothing="")

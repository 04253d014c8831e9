"""`publisher plan`: what a recipe will cost and give; by a config.json alone, or by the service."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from publisher.architecture.geometry import LayerWidths
from publisher.client import services
from publisher.families.describe import describe, kernel_notes
from publisher.files.json_object import read_object
from publisher.plan.plan import GIB, Plan, make_plan
from publisher.recipe.file import read_recipe

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--config", type=FILE, help="The base model's config.json: nothing else is asked.")
@click.option("--base", metavar="BASE_ID|ORG/NAME", help="Instead: a base model of the service, which plans.")
@click.option("--recipe", "recipe_file", required=True, type=FILE, help="The recipe, as JSON.")
@click.option("--flops", type=click.FloatRange(min=1), help="Speed of the worker in FLOP/s; measured here if left out.")
@click.option("--fp32-flops", type=click.FloatRange(min=1), help="The same in fp32; as --flops if left out.")
@click.option("--service", metavar="NAME", help="With --base: one that was signed in to; by default the last.")
@click.option("--json", "as_json", is_flag=True, help="The whole plan as JSON.")
def plan(
    *,
    config: Path | None,
    base: str | None,
    recipe_file: Path,
    flops: float | None,
    fp32_flops: float | None,
    service: str | None,
    as_json: bool,
) -> None:
    """Print parameters, bytes, memory and minutes of a recipe, before anything runs: by a config.json alone, or by a
    service that knows its workers' speed."""
    if (config is None) == (base is None):
        raise click.UsageError("name either --config or --base.")
    found = _asked(base, recipe_file, service) if base else _local(config, recipe_file, flops, fp32_flops)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        Console().print(plan_table(Plan.model_validate(found)))


def _asked(base: str, recipe_file: Path, service: str | None) -> Mapping[str, Any]:
    from publisher.client import Client
    from publisher.client.commands.base_models import base_named

    found = services.chosen(service)
    with Client(found.url, found.key) as client:
        return client.plan_variant(base_model_id=base_named(client, base)["id"], recipe=read_object(recipe_file))


def _local(config: Path | None, recipe_file: Path, flops: float | None, fp32_flops: float | None) -> Mapping[str, Any]:
    """By the config alone; no service, no weights."""
    assert config is not None
    raw = read_object(config)
    geometry = describe(raw)
    recipe = read_recipe(recipe_file)
    made = make_plan(geometry, recipe, flops_per_second=flops or local_flops(), fp32_flops_per_second=fp32_flops)
    return made.model_copy(update={"notes": [*kernel_notes(raw), *made.notes]}).model_dump(mode="json")


def plan_table(plan: Plan) -> Table:
    """A plan for people."""
    table = Table(title="Plan", show_header=False, title_justify="left")
    counts, sizes, memory = plan.parameters, plan.bytes, plan.memory
    table.add_row("parameters", f"{counts.base:,} → {counts.pruned:,} ({plan.reduction.parameters:.2f} × fewer)")
    for layers, kept in pruned_layers(plan):
        table.add_row(layers, kept)
    table.add_row("bytes", f"{_mib(sizes.base)} → {_mib(sizes.checkpoint)} ({plan.reduction.bytes:.2f} × smaller)")
    table.add_row("memory to train LoRA on it", f"{_mib(memory.train_lora)} (base: {_mib(memory.train_lora_on_base)})")
    if memory.align is not None:
        table.add_row("memory to align", f"{_mib(memory.align)} (GPUs by their GiB: {_gpus(plan)})")
    minutes = ", ".join(f"{stage} {value:.1f}" for stage, value in plan.minutes.items())
    table.add_row("expected minutes", f"{sum(plan.minutes.values()):.1f} ({minutes})")
    for note in plan.notes:
        table.add_row("note", note)
    return table


def _gpus(plan: Plan) -> str:
    """`24: 3, 48: 1, …`; a dash where no number of such GPUs is enough."""
    return ", ".join(f"{gib}: {count or '–'}" for gib, count in (plan.align_gpus or {}).items())


def pruned_layers(plan: Plan) -> Iterator[tuple[str, str]]:
    """`("layers 4-37", "14 of 40 KV heads, 4,838 of 13,824 neurons")` for neighbours that lose the same."""
    both = zip(plan.base_widths, plan.widths, strict=True)
    for (base, kept), group in itertools.groupby(enumerate(both), key=lambda entry: entry[1]):
        layers = [layer for layer, _ in group]
        if kept != base:
            first, last = layers[0], layers[-1]
            yield f"layer {first}" if first == last else f"layers {first}-{last}", _kept_of(base, kept)


def _kept_of(base: LayerWidths, kept: LayerWidths) -> str:
    units = base.counts
    return ", ".join(
        f"{count:,} of {units[unit]:,} {unit.replace('kv_', 'KV ')}"
        for unit, count in kept.counts.items()
        if count != units[unit]
    )


def local_flops(seconds: float = 0.2, width: int = 1024) -> float:
    """This machine's FLOP/s in fp32 matrix products of `width`; a stand-in for a worker that measured itself."""
    matrix = np.ones((width, width), dtype=np.float32)
    fastest, deadline = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < deadline or not math.isfinite(fastest):
        started = time.perf_counter()
        matrix @ matrix
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * width**3 / fastest


def _mib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / 2**20:.1f} MiB"

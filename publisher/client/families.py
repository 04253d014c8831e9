"""`publisher families`: which families of models can be pruned."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from publisher.client.announced import announced
from publisher.families.known import Families, Family, known_families

_UNITS = {"kv_heads": "heads", "neurons": "neurons", "experts": "experts"}


@click.command()
@click.argument("names", nargs=-1, metavar="[FAMILY]...")
@click.option("--check", is_flag=True, help="Find out anew: prune a tiny model of each and compare it with its base.")
@click.option("--json", "as_json", is_flag=True, help="The whole answer as JSON.")
@click.option("--write", is_flag=True, hidden=True, help="With --check and no names: replace the package's data file.")
@click.pass_context
def families(context: click.Context, names: tuple[str, ...], check: bool, as_json: bool, write: bool) -> None:
    """Print what can be pruned of each FAMILY (model_type in config.json); without names, of all."""
    if write and (names or not check):
        raise click.UsageError("--write goes with --check, and with all families.")
    if check:
        context.invoke(announced("families-check"), names=names, as_json=as_json, write=write)
    else:
        show(chosen(known_families(), names), as_json=as_json)


def chosen(every: Families, names: Sequence[str]) -> Families:
    """Those of these names, all if there is none; ClickException for one that transformers does not have."""
    by_name = {family.family: family for family in every.families}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise click.ClickException(
            f"transformers {every.transformers} has no causal language model of family {', '.join(unknown)}."
        )
    return every.model_copy(update={"families": [by_name[name] for name in names] if names else every.families})


def show(found: Families, *, as_json: bool) -> None:
    """On standard output, for people or for programs."""
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return
    console = Console()
    supported = [family for family in found.families if family.supported]
    others = [family for family in found.families if not family.supported]
    if supported:
        console.print(_supported_table(supported, found.transformers))
    if others:
        console.print(_others_table(others))


def _supported_table(families: Sequence[Family], version: str) -> Table:
    table = _table(
        f"Can be pruned, of transformers {version}: {len(families)}", "family", "class", "units", "difference"
    )
    for family in families:
        units = ", ".join(_UNITS[unit] for unit in family.units)
        table.add_row(family.family, family.model_class, units, f"{family.largest_difference or 0:.2g}")
        for unit, reason in family.whole.items():
            table.add_row("", f"[dim]{_UNITS[unit]} stay: {escape(reason)}")
    table.caption = (
        "difference: the largest between logits of the pruned model and of its base with the same switched off"
    )
    return table


def _others_table(families: Sequence[Family]) -> Table:
    table = _table(f"Cannot be pruned: {len(families)}", "family", "class", "why not")
    for family in families:
        table.add_row(family.family, family.model_class, escape(family.reason or ""))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column in ("family", "difference"), overflow="fold")
    return table

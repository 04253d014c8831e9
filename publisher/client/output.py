"""What commands answer, on stdout, in one of three forms; what they say about it goes to stderr.

For people: short tables in local time, coloured at a terminal alone. `--json`: what the service answered, by the
service's names: a document, and of lists a line for each item. `--quiet`: what names the things, a line for each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")
Item = Mapping[str, Any]

#: where stdout is no terminal nothing is cut or folded: programs and files have no edge
_NO_EDGE = 10_000


class Form(StrEnum):
    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


@dataclass(frozen=True)
class Column:
    """Of a table: `show` makes a cell's text of an item. `folds`: long texts go on in the next line."""

    title: str
    show: Callable[[Item], str]
    folds: bool = False
    right: bool = False


@dataclass(frozen=True)
class Output:
    """`named_by`: the field that `--quiet` writes."""

    form: Form = Form.HUMAN

    def items(self, items: Iterable[Item], columns: Sequence[Column], *, nothing: str, named_by: str = "id") -> None:
        """A list; `nothing` is said to people where it is empty."""
        if self.form is Form.HUMAN:
            found = list(items)
            return _table(found, columns) if found else say(nothing)
        for item in items:
            click.echo(json.dumps(item, ensure_ascii=False) if self.form is Form.JSON else str(item[named_by]))
        return None

    def item(self, item: Item, lines: Sequence[Column], *, named_by: str = "id") -> None:
        """One thing; of `lines` those that say something."""
        if self.form is Form.JSON:
            click.echo(json.dumps(item, ensure_ascii=False, indent=2))
        elif self.form is Form.QUIET:
            click.echo(str(item[named_by]))
        else:
            _lines(item, lines)

    def text(self, text: str) -> None:
        """For people alone: what no program reads."""
        if self.form is Form.HUMAN:
            say(text)


def say(text: str) -> None:
    """Talk, on stderr."""
    click.echo(text, err=True)


def output_options(command: Callable[P, R]) -> Callable[..., R]:
    """`--json` and `--quiet`; the command gets `output`."""

    @click.option("--json", "as_json", is_flag=True, help="What the service answered, as JSON; of lists a line each.")
    @click.option("-q", "--quiet", is_flag=True, help="Ids alone.")
    @wraps(command)
    def with_output(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> R:
        if as_json and quiet:
            raise click.UsageError("--json and --quiet are two forms: choose one.")
        form = Form.JSON if as_json else Form.QUIET if quiet else Form.HUMAN
        return command(*args, output=Output(form), **kwargs)  # type: ignore[arg-type]

    return with_output


def moment(at: float | None) -> str:
    """`2026-11-28 21:03` where this runs, of seconds since 1970."""
    return "" if at is None else datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")


def field(name: str) -> Callable[[Item], str]:
    """A field as it is; nothing for null."""
    return lambda item: "" if item.get(name) is None else str(item[name])


def when(name: str) -> Callable[[Item], str]:
    return lambda item: moment(item.get(name))


def count(name: str) -> Callable[[Item], str]:
    """`84,012,345`"""
    return lambda item: "" if item.get(name) is None else f"{item[name]:,}"


def pairs(name: str) -> Callable[[Item], str]:
    """Labels: `team:search study:ratios`."""
    return lambda item: " ".join(f"{key}:{value}" for key, value in (item.get(name) or {}).items())


def _table(items: Sequence[Item], columns: Sequence[Column]) -> None:
    from rich.markup import escape
    from rich.table import Table

    shown = [column for column in columns if any(column.show(item) for item in items)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in shown:
        overflow = "fold" if column.folds else "ignore"
        justify = "right" if column.right else "left"
        table.add_column(column.title, no_wrap=not column.folds, overflow=overflow, justify=justify)  # type: ignore[arg-type]
    for item in items:
        table.add_row(*(escape(column.show(item)) for column in shown))
    _console().print(table)


def _lines(item: Item, lines: Sequence[Column]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        if text := line.show(item):
            table.add_row(line.title, escape(text))
    _console().print(table)


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_NO_EDGE)

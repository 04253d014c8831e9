"""What several commands take: which service, filters of lists, labels, sources; and a question before things go."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from publisher.client import services
from publisher.client.call import Call, Page
from publisher.store.states import JobState

if TYPE_CHECKING:
    from publisher.client import Client

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

#: items a page, as many as the service gives
_PAGE = 200

_STATES = [state.value for state in JobState]
_AGO = re.compile(r"(\d{1,6})([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86400}


def service_options(command: Callable[P, R]) -> Callable[..., R]:
    """`--service` and `--url`; the command gets a `client` that is closed after it."""

    @click.option("--service", metavar="NAME", help="One that was signed in to; by default the last.")
    @click.option("--url", help="Of the service; or set PUBLISHER_URL, with PUBLISHER_API_KEY beside it.")
    @click.option("--key", hidden=True, help="shown to whoever lists processes: set PUBLISHER_API_KEY")
    @wraps(command)
    def with_client(*args: Any, service: str | None, url: str | None, key: str | None, **kwargs: Any) -> R:
        from publisher.client import Client

        found = services.chosen(service, url, key)
        with Client(found.url, found.key) as client:
            return command(*args, client=client, **kwargs)  # type: ignore[arg-type]

    return with_client


class Moment(click.ParamType[float]):
    """Seconds since 1970 of `7d` (ago), `12h`, `30m`, or of a date and time where this runs."""

    name = "when"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        if not isinstance(value, str):
            return float(value)
        if ago := _AGO.fullmatch(value):
            return time.time() - int(ago[1]) * _SECONDS[ago[2]]
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            self.fail(f"{value!r} is neither 7d, 12h or 30m (ago) nor 2026-11-28.", parameter, context)


class Labels(click.ParamType[str]):
    """`team:search`"""

    name = "key:value"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        if ":" not in str(value):
            self.fail(f"{value!r} is not key:value.", parameter, context)
        return str(value)


def labels_of(given: tuple[str, ...]) -> Mapping[str, str]:
    """As the service takes them."""
    return dict(each.split(":", 1) for each in given)


label_option = click.option("--label", "labels", multiple=True, type=Labels(), help="To find it by; may be repeated.")


def list_options(command: Callable[P, R]) -> Callable[..., R]:
    """Filters that every list has; the command gets them as the service calls them, in `filters`."""

    @click.option("--label", multiple=True, type=Labels(), help="Only with this label; may be repeated: all hold.")
    @click.option("--after", "created_after", type=Moment(), metavar="WHEN", help="Made since: 7d, or 2026-11-28.")
    @click.option("--before", "created_before", type=Moment(), metavar="WHEN", help="Made before that.")
    @click.option("--limit", "most", type=click.IntRange(min=1), help="So many at most; all by default.")
    @wraps(command)
    def with_filters(
        *args: Any,
        label: tuple[str, ...],
        created_after: float | None,
        created_before: float | None,
        most: int | None,
        **kwargs: Any,
    ) -> R:
        filters = {"label": label or None, "created_after": created_after, "created_before": created_before}
        return command(*args, filters=filters, most=most, **kwargs)  # type: ignore[arg-type]

    return with_filters


def whose_options(command: Callable[P, R]) -> Callable[..., R]:
    """Below list_options: filters of variants and their jobs."""

    @click.option("--state", multiple=True, type=click.Choice(_STATES), help="Of the job; may be repeated.")
    @click.option("--base-model", "base_model_id", metavar="ID", help="Only of this base model.")
    @click.option("--repo", "repo_id", metavar="ORG/NAME", help="Only of this repository.")
    @click.option("--sweep", "sweep_id", metavar="ID", help="Only of this sweep.")
    @wraps(command)
    def with_filters(
        *args: Any,
        filters: Mapping[str, Any],
        state: tuple[str, ...],
        base_model_id: str | None,
        repo_id: str | None,
        sweep_id: str | None,
        **kwargs: Any,
    ) -> R:
        whose = {"base_model_id": base_model_id, "repo_id": repo_id, "sweep_id": sweep_id}
        return command(*args, filters={**filters, **whose, "state": list(state) or None}, **kwargs)  # type: ignore[arg-type]

    return with_filters


def some(client: Client, build: Callable[..., Call[Page[T]]], most: int | None, **filters: Any) -> Iterator[T]:
    """Of all pages the first `most` items, or all."""
    found = client.every(build, **filters, limit=min(most or _PAGE, _PAGE))
    return islice(found, most)


def is_folder(source: str) -> bool:
    """What is no `org/name`: whoever has such a folder here, too, writes ./org/name."""
    return source.startswith((".", "/", "~")) or source.count("/") != 1


def folder(source: str) -> str:
    """As the service sees it, where it runs on this machine."""
    return str(Path(source).expanduser().absolute())


yes_option = click.option("--yes", is_flag=True, help="Without asking.")


def sure(what: str, *, yes: bool) -> None:
    """Ask on stderr, unless `yes`; whoever says no is stopped."""
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{what}? Nobody is there to be asked: --yes does it.")
        click.confirm(f"{what}?", abort=True, err=True)

"""What the work that is under way is about: fields that each of its log lines carries.

A request is served by a task and by threads that get a copy of its context. They all share one set of fields, so that
what a thread finds out (whose key it is) is in the lines of the task as well.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_current: ContextVar[dict[str, object] | None] = ContextVar("fields of log lines", default=None)


def begin(**fields: object) -> None:
    """From now on, for this task or thread and what it starts: these fields and no others. None: not known."""
    _current.set(_known(fields))


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Inside, these fields beside those around it."""
    token = _current.set((_current.get() or {}) | _known(fields))
    try:
        yield
    finally:
        _current.reset(token)


def tell(**fields: object) -> None:
    """Add what was found out to the fields of the work under way; nothing where none is."""
    current = _current.get()
    if current is not None:
        current.update(_known(fields))


def told() -> dict[str, object]:
    """A copy of the fields of the work under way."""
    return dict(_current.get() or {})


def add_fields(logger: object, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog; what a line says itself stays."""
    for name, value in (_current.get() or {}).items():
        line.setdefault(name, value)
    return line


def _known(fields: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}

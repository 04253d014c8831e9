"""A call of the service as a value: built once, sent by a client that waits for the answer or by one that awaits it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import wraps
from typing import Any, Final, Generic, ParamSpec, Self, TypedDict, TypeVar, overload
from urllib.parse import quote

P = ParamSpec("P")
T = TypeVar("T")
Answer_co = TypeVar("Answer_co", covariant=True)

#: of RFC 9110: sent twice they do what they do once
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_ONCE_ONLY = "Idempotency-Key"


class Omit(Enum):
    """What a field of a body is that is not sent: the service's default holds. null is something else."""

    OMIT = "omitted"


OMIT: Final = Omit.OMIT


class Page(TypedDict, Generic[T]):
    """A part of a list; `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | int | None


@dataclass(frozen=True)
class Call(Generic[Answer_co]):
    """`query`, `headers` and `body` hold what may be sent: None of the first two and OMIT of a body are left out."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None

    def request(self) -> dict[str, Any]:
        """As httpx takes it."""
        return {
            "method": self.method,
            "url": self.path,
            "params": _without(self.query, None),
            "headers": {name: str(value) for name, value in _without(self.headers, None).items()},
            "json": None if self.body is None else _without(self.body, OMIT),
        }

    def after(self, cursor: str | int) -> Self:
        """The same of the next page."""
        return replace(self, query={**self.query, "cursor": cursor})

    def once(self, key: str) -> Self:
        """The same with a key that makes repeating it safe, if it takes one and has none."""
        if self.headers.get(_ONCE_ONLY) is not None or _ONCE_ONLY not in self.headers:
            return self
        return replace(self, headers={**self.headers, _ONCE_ONLY: key})

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be sent again when nobody knows whether it arrived."""
        return self.method in _IDEMPOTENT or self.headers.get(_ONCE_ONLY) is not None


class Streamed(Call[None]):
    """Its answer does not come at once: events, or a file."""


def place(value: str, *, keep: str = "") -> str:
    """A value as a part of a path; `keep`: what is not escaped."""
    return quote(value, safe=keep)


class Sends(ABC):
    """A client whose answers are waited for."""

    @abstractmethod
    def send(self, call: Call[T]) -> T: ...


class SendsAsync(ABC):
    """A client whose answers are awaited."""

    @abstractmethod
    async def send(self, call: Call[T]) -> T: ...


class Operation(Generic[P, T]):
    """A method of both clients, from the function that builds its call."""

    def __init__(self, build: Callable[P, Call[T]]) -> None:
        self.build = build

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...

    @overload
    def __get__(self, client: Sends, owner: type) -> Callable[P, T]: ...

    @overload
    def __get__(self, client: SendsAsync, owner: type) -> Callable[P, Awaitable[T]]: ...

    def __get__(self, client: Any, owner: type) -> Any:
        if client is None:
            return self

        @wraps(self.build)
        def send(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.send(self.build(*args, **kwargs))

        return send


def _without(values: Mapping[str, Any], left_out: object) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not left_out}

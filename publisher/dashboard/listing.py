"""What the lists have in common: what their addresses ask for, and the addresses that lead on from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Generic
from urllib.parse import urlencode

from fastapi import Query
from pydantic import BeforeValidator
from sqlalchemy import Select
from sqlalchemy.orm import Session

from publisher.errors import NotFound
from publisher.store.orders import Listed, Orders, ordered, rows_of
from publisher.store.paging import newest_first, page_of

#: lines on a page of a list
PAGE = 25
#: the last page that can be asked for by its number: nobody turns so many
_LAST = 10_000

Cursor = Annotated[str | None, Query(max_length=64)]
Number = Annotated[int, Query(alias="page", ge=1, le=_LAST)]
Sort = Annotated[str, Query(max_length=32)]
#: a form sends what is left open as an empty word
Word = Annotated[str, Query(max_length=200)]
OrNone = BeforeValidator(lambda value: value or None)


@dataclass(frozen=True)
class Listing:
    """`fields`: what narrows the list down, by its name in the address. `sort`: a word of its orders, `-` before it for
    descending; empty: newest first, which alone goes by `cursor` instead of `number`."""

    path: str
    fields: Mapping[str, str] = field(default_factory=dict)
    sort: str = ""
    cursor: str | None = None
    number: int = 1

    @classmethod
    def of(cls, path: str, sort: str, cursor: str | None, number: int, **fields: str | None) -> Listing:
        given = {name: value.strip() for name, value in fields.items() if value and value.strip()}
        return cls(path, given, "" if sort == "-created" else sort, cursor or None, number)

    @property
    def is_first(self) -> bool:
        return self.cursor is None and self.number == 1

    @property
    def is_as_it_is(self) -> bool:
        """Whether it is the whole list from its beginning."""
        return self.is_first and not self.fields

    @property
    def by(self) -> str:
        return self.sort.lstrip("-") or "created"

    @property
    def direction(self) -> str:
        """As `aria-sort` has it."""
        return "descending" if self.sort.startswith("-") or not self.sort else "ascending"

    def to(self, **changes: str | None) -> str:
        """The address of the first page with these fields, or `sort`, changed; None or empty takes one away."""
        return self._address({"sort": self.sort} | dict(self.fields) | changes)

    def sorted_by(self, word: str, *, descending: bool = False) -> str:
        """Where the head of a column leads: its own order first, then the other way round."""
        if word == self.by:
            descending = self.direction == "ascending"
        sort = f"-{word}" if descending else word
        return self.to(sort="" if sort == "-created" else sort)

    def page(self, number: int) -> str:
        return self._address({"sort": self.sort, **self.fields, "page": str(number) if number > 1 else ""})

    def after(self, cursor: str) -> str:
        return self._address({"cursor": cursor, **self.fields})

    def _address(self, asked: Mapping[str, str | None]) -> str:
        query = urlencode({name: value for name, value in asked.items() if value})
        return f"{self.path}?{query}" if query else self.path


@dataclass(frozen=True)
class Found(Generic[Listed]):
    """A page of a list; the addresses are None where there is no such page."""

    rows: Sequence[Listed]
    newer: str | None
    older: str | None


def find(
    session: Session, statement: Select[Listed], model: type[Listed], orders: Orders, listing: Listing
) -> Found[Listed]:
    """Raises NotFound for an order that the list has not."""
    if not listing.sort:
        part = newest_first(session, statement, model, listing.cursor, PAGE)
        older = listing.after(part.next_cursor) if part.next_cursor else None
        return Found(part.items, listing.to() if listing.cursor else None, older)
    if listing.by not in orders:
        raise NotFound("There is no such page.")
    ids = ordered(statement, model, orders[listing.by], descending=listing.direction == "descending")
    page, has_more = page_of(session, ids, listing.number, PAGE)
    newer = listing.page(listing.number - 1) if listing.number > 1 else None
    older = listing.page(listing.number + 1) if has_more else None
    return Found(rows_of(session, statement, model, page), newer, older)

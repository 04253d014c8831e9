"""Pages of lists: newest first by cursor, so that what is added meanwhile does not shift the next page, or in another
order by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from sqlalchemy import Select
from sqlalchemy.orm import Session

from publisher.errors import RequestFault
from publisher.store.tenancy import Owned


@dataclass(frozen=True)
class Rows(Generic[Owned]):
    """`next_cursor` is None on the last page."""

    items: Sequence[Owned]
    next_cursor: str | None


def newest_first(
    session: Session, statement: Select[Owned], model: type[Owned], cursor: str | None, limit: int
) -> Rows[Owned]:
    """One page of `statement` after the row whose id is `cursor`. Ids sort by age.

    RequestFault for a cursor of another list, which would give everything or nothing.
    """
    if cursor is not None:
        if not cursor.startswith(f"{model.id_kind}_"):
            raise RequestFault(
                f"{cursor!r} is not of this list.", field="cursor", way_out="Give the next_cursor of its page before."
            )
        statement = statement.where(model.id < cursor)
    found = session.scalars(statement.order_by(model.id.desc()).limit(limit + 1)).all()
    items = found[:limit]
    return Rows(items, items[-1].id if len(found) > limit else None)


def page_of(session: Session, ids: Select[str], number: int, limit: int) -> tuple[list[str], bool]:
    """Page `number` (from 1) of these ids, in their order, and whether there is another after it."""
    found = list(session.scalars(ids.offset((number - 1) * limit).limit(limit + 1)))
    return found[:limit], len(found) > limit

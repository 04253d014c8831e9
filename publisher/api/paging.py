"""Lists by pages: `?limit=` and `?cursor=`, the `next_cursor` of the page before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field

Item = TypeVar("Item", bound=BaseModel)


class Page(BaseModel, Generic[Item]):
    """Newest first."""

    items: list[Item] = Field(description="of this page")
    next_cursor: str | None = Field(description="give it as ?cursor= to get the next page; null on the last")


@dataclass(frozen=True)
class PageRequest:
    cursor: str | None
    limit: int


async def page_request(
    cursor: Annotated[
        str | None, Query(max_length=64, pattern=r"^[a-z]+_[0-9a-f]{22}$", description="next_cursor of the page before")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="items per page")] = 50,
) -> PageRequest:
    return PageRequest(cursor, limit)


RequestedPage = Annotated[PageRequest, Depends(page_request)]

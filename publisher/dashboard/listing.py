"""What the lists have in common: their length and the address of the next page."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

#: lines on a page of a list
PAGE = 25

Cursor = Annotated[str | None, Query(max_length=64)]

"""What lists are filtered by, as queries."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Depends, Query

from publisher.api.labels import KEY, VALUE
from publisher.errors import RequestFault
from publisher.store.filters import Filters
from publisher.store.labels import MOST
from publisher.store.states import JobState


def time_filter(description: str) -> Any:
    return Query(ge=0, le=2**40, allow_inf_nan=False, description=f"{description}, in seconds since 1970")


def listed_filters(
    label: Annotated[
        list[str] | None,
        Query(
            description="key:value; may be repeated, and all have to hold", examples=["team:search"], max_length=MOST
        ),
    ] = None,
    created_after: Annotated[float | None, time_filter("made then or later")] = None,
    created_before: Annotated[float | None, time_filter("made before then")] = None,
) -> Filters:
    pairs = tuple(_pair(text, index) for index, text in enumerate(label or ()))
    return Filters(labels=pairs, created_after=created_after, created_before=created_before)


ListedFilters = Annotated[Filters, Depends(listed_filters)]

StateFilter = Annotated[list[JobState] | None, Query(description="only these states; may be repeated")]
RepoFilter = Annotated[str | None, Query(max_length=200, description="only of this repository")]
BaseModelFilter = Annotated[str | None, Query(max_length=64, description="only of this base model")]
SweepFilter = Annotated[str | None, Query(max_length=64, description="only of this sweep")]


def _pair(text: str, index: int) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not colon or not re.fullmatch(KEY, key) or not re.fullmatch(VALUE, value):
        raise RequestFault(
            f"label {text!r} is not key:value as labels are written.",
            field=f"label.{index}",
            way_out="Example: team:search.",
        )
    return key, value

"""The same request again: its `Idempotency-Key` made something once, with which every other is answered."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header

from publisher.errors import Conflict
from publisher.store.models import Sweep, Variant

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="the same key and body gives the same answer, however often it is sent",
    ),
]


def refuse_other_body(made: Variant | Sweep, digest: str, key: str) -> None:
    """Conflict if `made` is what a request of another `digest` with this key made."""
    if made.request_digest != digest:
        raise Conflict(
            f"Idempotency-Key {key!r} was used with another body; it made {made.__tablename__[:-1]} {made.id}.",
            field="Idempotency-Key",
            way_out="Send a new key with a new request.",
        )

"""What all tables have in common."""

from __future__ import annotations

import os
import secrets
import threading
import time
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Enum, Float, Index, MetaData, String
from sqlalchemy.orm import DeclarativeBase

from publisher.store.states import DeliveryState, JobState

_clock = time.time
#: milliseconds that a clock may be set back; after more it was wrong before, and is not followed
_SET_BACK = 10_000


class _Numbers:
    """Those of ids: milliseconds and 40 random bits, each larger than the one before."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._last = 0
        self._one_at_a_time = threading.Lock()

    def next(self) -> int:
        with self._one_at_a_time:
            fresh = (int(_clock() * 1000) << 40) | secrets.randbits(40)
            if 0 <= self._last - fresh < _SET_BACK << 40:
                # not by one: another process, in the same millisecond, counts on from a number of its own
                fresh = self._last + 1 + secrets.randbits(16)
            self._last = fresh
            return fresh


_NUMBERS = _Numbers()
os.register_at_fork(after_in_child=_NUMBERS.begin)  # else both would count on alike


def new_id(prefix: str) -> str:
    """`job_0192f3a1c2b4d5e6f7a8b9`: 12 hex digits of milliseconds, then randomness, so that ids sort by age.

    Those of one process sort so even within a millisecond and when its clock is set back: what a request makes one
    after the other, such as a sweep's variants, is listed in that order.
    """
    return f"{prefix}_{_NUMBERS.next():022x}"


def in_words(states: type[StrEnum]) -> Enum:
    """The state's own word in a plain column, so that a new state needs no change of a database type."""
    return Enum(states, native_enum=False, length=16, values_callable=lambda kind: [state.value for state in kind])


STATE = in_words(JobState)
DELIVERY_STATE = in_words(DeliveryState)


#: Every constraint has a name, so that a later migration can change it on SQLite, too.
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Table(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {
        dict[str, Any]: JSON(none_as_null=True),
        str: String(),
        float: Float(),
        int: BigInteger(),
        bool: Boolean(),
    }


def list_index() -> Index:
    """A tenant's rows by age: a page of a list is read from where it begins, however long the list is."""
    return Index(None, "tenant_id", "id")

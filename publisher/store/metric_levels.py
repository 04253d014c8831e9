"""Which points stand for how many: what thins a series without losing a spike, kept up to date as points come.

A point has level k if it is the lowest or the highest of its 4**k steps (and so of its 4, 16, … steps). A bucket's
extremes are extremes of its parts: a level follows from the one below, and what a batch of points changes is found in
the buckets that it touches, at most a few points of each level, however long the series is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

#: steps of a bucket of the next level, in buckets of this one
FAN = 4
#: 4**10 is a million steps; longer series still have at most two points for each of them
TOP = 10


class Valued(Protocol):
    """`value` is None where it was not a number."""

    @property
    def value(self) -> float | None: ...


SomePoint = TypeVar("SomePoint", bound=Valued)


@dataclass
class Point:
    """The last report of a step, as publisher.store.models.MetricPoint has it."""

    step: int
    value: float | None
    at: float
    seq: int
    level: int = 0


def neighbourhood(low: int, high: int) -> Iterator[tuple[int, int, int]]:
    """(level, first step, last step): the points that decide the levels of steps `low` to `high`."""
    for level in range(TOP + 1):
        width: int = FAN ** min(level + 1, TOP)
        yield level, low // width * width, high // width * width + width - 1


def set_levels(points: Iterable[Point], changed: Iterable[int]) -> None:
    """Set the levels of `points` (those of one series in the neighbourhood) after these steps changed."""
    touched, reached = set(changed), list(points)
    for level in range(1, TOP + 1):
        width: int = FAN**level
        touched_buckets = {step // width for step in touched}
        buckets: dict[int, list[Point]] = {}
        for point in reached:
            if point.level >= level - 1:
                buckets.setdefault(point.step // width, []).append(point)
        for bucket in touched_buckets & buckets.keys():
            _settle(buckets[bucket], level)


def _settle(bucket: list[Point], level: int) -> None:
    for point in bucket:
        point.level = level - 1
    for point in extremes(bucket):
        point.level = level


def extremes(bucket: Collection[SomePoint]) -> list[SomePoint]:
    """The lowest and the highest, which may be one; what is no number counts only where nothing else is."""
    numbers = [point for point in bucket if point.value is not None] or bucket
    return [min(numbers, key=_height), max(numbers, key=_height)]


def _height(point: Valued) -> float:
    return 0.0 if point.value is None else point.value

"""Scatter plots as numbers to put into an SVG: a labelled dot for each thing, and the front that none of them beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from publisher.dashboard.charts import Scale, Tick

#: the SVG's own units
WIDTH, HEIGHT = 620, 340
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 14, 46
#: letters of a label, and the units that one line of them is high
_LABEL, _LINE = 22, 13


@dataclass(frozen=True)
class Axis:
    """`more_is_better`: which end is the good one."""

    title: str
    more_is_better: bool


@dataclass(frozen=True)
class Spot:
    """`x` and `y` in the units of their axes."""

    name: str
    address: str
    x: float
    y: float
    said: str


@dataclass(frozen=True)
class Dot:
    """A spot in the SVG's units; `anchor` is text-anchor's."""

    spot: Spot
    x: float
    y: float
    label: str
    label_x: float
    label_y: float
    anchor: str
    on_front: bool


@dataclass(frozen=True)
class Scatter:
    """`front`: a polyline's points."""

    dots: list[Dot]
    front: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def pareto(spots: Sequence[Spot], x: Axis, y: Axis) -> set[int]:
    """Places of those that no other is at least as good as in both, and better in one."""

    def better(one: Spot, other: Spot) -> bool:
        return _gains(one, other, x, y) and not _gains(other, one, x, y)

    return {place for place, spot in enumerate(spots) if not any(better(other, spot) for other in spots)}


def _gains(one: Spot, other: Spot, x: Axis, y: Axis) -> bool:
    """Whether `one` is nowhere worse than `other`."""
    return _good(one.x, x) >= _good(other.x, x) and _good(one.y, y) >= _good(other.y, y)


def _good(value: float, axis: Axis) -> float:
    return value if axis.more_is_better else -value


def draw_scatter(
    spots: Sequence[Spot], x: Axis, y: Axis, *, x_ticks: Sequence[Tick] = (), y_ticks: Sequence[Tick] = ()
) -> Scatter | None:
    """`x_ticks`, `y_ticks`: values and their words, which enclose all spots; None of no spots."""
    if not spots:
        return None
    across = Scale(x_ticks[0].at, x_ticks[-1].at, LEFT, WIDTH - RIGHT)
    up = Scale(y_ticks[0].at, y_ticks[-1].at, HEIGHT - BOTTOM, TOP)
    front = pareto(spots, x, y)
    line = sorted((across(spots[place].x), up(spots[place].y)) for place in front)
    return Scatter(
        dots=_dots(spots, front, across, up),
        front=" ".join(f"{left},{top}" for left, top in line),
        x_ticks=[Tick(across(tick.at), tick.label) for tick in x_ticks],
        y_ticks=[Tick(up(tick.at), tick.label) for tick in y_ticks],
    )


def _dots(spots: Sequence[Spot], front: set[int], across: Scale, up: Scale) -> list[Dot]:
    """Labels stand beside their dots, and move down where another is in the way."""
    taken: list[tuple[float, float, float]] = []
    dots: dict[int, Dot] = {}
    for place in sorted(range(len(spots)), key=lambda place: up(spots[place].y)):
        spot = spots[place]
        left, top = across(spot.x), up(spot.y)
        label = spot.name if len(spot.name) <= _LABEL else f"{spot.name[: _LABEL - 1]}…"
        to_the_left = left > (WIDTH + LEFT) / 2
        start, end = (left - 9 - 7 * len(label), left - 9) if to_the_left else (left + 9, left + 9 + 7 * len(label))
        height = top
        while any(start < far and end > near and abs(height - line) < _LINE for near, far, line in taken):
            height += 2
        if height > HEIGHT - BOTTOM:  # so many in one place that their names do not fit: the table has them
            label = ""
        else:
            taken.append((start, end, height))
        anchor = "end" if to_the_left else "start"
        dots[place] = Dot(
            spot, left, top, label, end if to_the_left else start, round(height, 2), anchor, place in front
        )
    return [dots[place] for place in range(len(spots))]

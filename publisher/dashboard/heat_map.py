"""Heat maps as numbers to put into an SVG: a row for each layer, and how much of each stretch of indices stayed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from publisher.dashboard.charts import Tick, nice_ticks

#: the SVG's own units
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 460, 40, 12, 6, 34
#: of a row: as tall as a few layers look well with, and as many leave room for
_TALLEST, _LOWEST, _ROWS_HEIGHT = 14.0, 4.0, 260.0
#: shades that the eye tells apart
LEVELS = 8


@dataclass(frozen=True)
class Level:
    """Cells of one shade: `share` is 0 to 1, `path` an SVG path around them."""

    share: float
    path: str


@dataclass(frozen=True)
class HeatMap:
    """`said` is the drawing in words; `x_title` names what lies along a row."""

    title: str
    said: str
    x_title: str
    height: float
    bottom: float
    levels: list[Level]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def draw_heat_map(title: str, said: str, x_title: str, rows: Sequence[Sequence[float]], longest: int) -> HeatMap:
    """`rows`: of each layer the share that stayed of each stretch of its indices, of `longest` in all."""
    tall = max(_LOWEST, min(_TALLEST, _ROWS_HEIGHT / len(rows)))
    bottom = TOP + tall * len(rows)
    cells: dict[int, list[str]] = {}
    for row, shares in enumerate(rows):
        for level, left, width in _runs(shares):
            cells.setdefault(level, []).append(f"M{left:g} {TOP + row * tall:g}h{width:g}v{tall:g}h{-width:g}z")
    return HeatMap(
        title=title,
        said=said,
        x_title=x_title,
        height=bottom + BOTTOM,
        bottom=bottom,
        levels=[Level(level / LEVELS, "".join(paths)) for level, paths in sorted(cells.items()) if level],
        x_ticks=[Tick(_x((index + 0.5) / longest), f"{index:,.0f}") for index in _ticks(longest - 1)],
        y_ticks=[Tick(round(TOP + (layer + 0.5) * tall, 2), f"{layer:.0f}") for layer in _ticks(len(rows) - 1)],
    )


def _runs(shares: Sequence[float]) -> Iterator[tuple[int, float, float]]:
    """Level, left edge and width of neighbours that look alike."""
    place = 0
    for level, alike in groupby(round(share * LEVELS) for share in shares):
        count = len(list(alike))
        left, right = _x(place / len(shares)), _x((place + count) / len(shares))
        yield level, left, round(right - left, 2)
        place += count


def _x(share: float) -> float:
    return round(LEFT + share * (WIDTH - RIGHT - LEFT), 2)


def _ticks(highest: int) -> list[float]:
    return [tick for tick in nice_ticks(0, max(highest, 1), whole=True) if tick <= highest]

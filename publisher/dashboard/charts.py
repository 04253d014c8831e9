"""Line charts as numbers to put into an SVG: domain, ticks and the line, all computed here, none in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

Point = tuple[int, float]

#: the SVG's own units; the plot is what the margins leave
WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 12, 30
BOX = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM}
#: of a series that is drawn: more on some 400 pixels only make the page heavier
MOST_POINTS = 400
TICKS = 5


@dataclass(frozen=True)
class Tick:
    """`at` in the SVG's units."""

    at: float
    label: str


@dataclass(frozen=True)
class Scale:
    """Maps `low`..`high` to `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 2)


@dataclass(frozen=True)
class Chart:
    """One series: `line` is a polyline's `points`."""

    name: str
    title: str
    line: str
    x: Scale
    y: Scale
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    first: Point
    last: Point
    lowest: float
    highest: float

    @property
    def end(self) -> tuple[float, float]:
        """Where the line ends, in the SVG's units."""
        return self.x(self.last[0]), self.y(self.last[1])


def draw(name: str, points: Sequence[Point], *, growing: bool) -> Chart | None:
    """A chart of `points` (step, value) in order of their steps, MOST_POINTS or fewer; None if none of them is finite.

    `growing` leaves room to the right, so that new points rarely need new axes.
    """
    points = [point for point in points if isfinite(point[1])]
    if not points:
        return None
    values = [value for _, value in points]
    first, last = points[0], points[-1]
    room = (last[0] - first[0]) * 1.25 + 4 if growing else last[0] - first[0]
    steps = nice_ticks(first[0], first[0] + max(room, 1), whole=True)
    heights = nice_ticks(min(values), max(values))
    x = Scale(first[0], max(steps[-1], last[0]), LEFT, WIDTH - RIGHT)
    y = Scale(heights[0], heights[-1], HEIGHT - BOTTOM, TOP)
    return Chart(
        name=name,
        title=name.replace("_", " ").capitalize(),
        line=" ".join(f"{x(step)},{y(value)}" for step, value in points),
        x=x,
        y=y,
        x_ticks=[Tick(x(step), f"{step:,.0f}") for step in steps if step >= first[0]],
        y_ticks=[Tick(y(height), number(height)) for height in heights],
        first=first,
        last=last,
        lowest=min(values),
        highest=max(values),
    )


#: values this close, relative to their size, are one: between them no step is left that floats can count
_SAME = 1e-9


def nice_ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """About five round numbers that enclose `low` and `high`: multiples of 1, 2 or 5 times a power of ten."""
    largest = max(abs(low), abs(high))
    if high - low <= largest * _SAME:
        spread = largest * 0.1 or 1.0
        low, high = low - spread, high + spread
    step = _nice_step((high - low) / (TICKS - 1))
    if whole:
        step = max(1.0, step)
    return [round(index * step, 12) for index in range(floor(low / step), ceil(high / step) + 1)]


def _nice_step(raw: float) -> float:
    power = 10.0 ** floor(log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)


def number(value: float) -> str:
    """Four digits: `2.104`, `76.62`, `13,540`, `1e-4`."""
    if value and abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"

"""Line charts as numbers to put into an SVG: domain, ticks and the lines, all computed here, none in the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from publisher.dashboard.metrics import Metric, in_order, metric_of

Point = tuple[int, float]

#: of a series that is drawn: more on some 400 pixels only make the page heavier
MOST_POINTS = 400
#: a line of fewer points shows each of them
FEW_POINTS = 12


@dataclass(frozen=True)
class Box:
    """The SVG's own units; the plot is what the margins leave. `ticks`: about how many."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    ticks: int


LARGE = Box(width=460, height=240, left=52, right=440, top=26, bottom=194, ticks=5)
SMALL = Box(width=300, height=130, left=52, right=288, top=24, bottom=90, ticks=3)


@dataclass(frozen=True)
class Tick:
    """`at` in the SVG's units."""

    at: float
    label: str


@dataclass(frozen=True)
class Scale:
    """Maps `low`..`high` to `start`..`end`; `is_log`: by their logarithms."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (log10(each) if self.is_log else each for each in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 2)


@dataclass(frozen=True)
class Line:
    """One series: `points` is a polyline's; `end` is where it ends, in the SVG's units."""

    name: str
    label: str
    points: str
    first: Point
    last: Point
    lowest: float
    highest: float
    end: tuple[float, float]
    is_sparse: bool

    @property
    def words(self) -> str:
        """What a text says in place of the drawing."""
        ends = f"{_at(self.first)}, {_at(self.last)}"
        return f"{ends}; lowest {number(self.lowest)}, highest {number(self.highest)}"

    @property
    def told(self) -> str:
        return f"{self.label} {_at(self.last)}".strip()


def _at(point: Point) -> str:
    return f"{number(point[1])} at step {point[0]:,}"


@dataclass(frozen=True)
class Chart:
    """One or several series on the same axes; `metric` declares the first of them."""

    metric: Metric
    lines: list[Line]
    box: Box
    x: Scale
    y: Scale
    x_ticks: list[Tick]
    y_ticks: list[Tick]

    @property
    def name(self) -> str:
        return self.metric.key

    @property
    def told(self) -> str:
        return " · ".join(line.told for line in self.lines)

    @property
    def words(self) -> str:
        lines = "; ".join(f"{line.label}: {line.words}" if line.label else line.words for line in self.lines)
        return f"{self.metric.title} by {self.metric.axis}: {lines}"


def draw_all(series: Mapping[str, Sequence[Point]], totals: Mapping[str, int | None], *, growing: bool) -> list[Chart]:
    """A chart for each group of `series`, in the page's order. `totals`: the last step that a series will have."""
    groups: dict[str, list[str]] = {}
    for name in sorted(series, key=in_order):
        groups.setdefault(metric_of(name).key, []).append(name)
    drawn = [draw({name: series[name] for name in names}, totals, growing=growing) for names in groups.values()]
    return [chart for chart in drawn if chart is not None]


def draw(
    series: Mapping[str, Sequence[Point]], totals: Mapping[str, int | None] | None = None, *, growing: bool
) -> Chart | None:
    """A chart of series of points (step, value) in order of their steps, MOST_POINTS or fewer each; None if none of
    them can be drawn.

    It reaches to the last step that is to come. Where nobody knows it, `growing` leaves room to the right, so that new
    points rarely need new axes.
    """
    finite = {name: [point for point in points if _is_drawable(point[1])] for name, points in series.items()}
    shown = {name: points for name, points in finite.items() if points}
    if not shown:
        return None
    metric, several = metric_of(next(iter(shown))), len(shown) > 1
    box = SMALL if metric.is_small else LARGE
    values = [value for points in shown.values() for _, value in points]
    is_log = metric.is_log and min(values) > 0
    x, steps = _steps(shown, max((totals or {}).get(name) or 0 for name in shown), box, growing=growing)
    heights = log_ticks(min(values), max(values)) if is_log else nice_ticks(min(values), max(values), count=box.ticks)
    y = Scale(heights[0], heights[-1], box.bottom, box.top, is_log)
    return Chart(
        metric=metric,
        lines=[_line(name, points, x, y, named=several) for name, points in shown.items()],
        box=box,
        x=x,
        y=y,
        x_ticks=[Tick(x(step), f"{step:,.0f}") for step in steps if x.low <= step <= x.high],
        y_ticks=[Tick(y(height), number(height)) for height in heights],
    )


def _is_drawable(value: float) -> bool:
    """Whether axes can be reckoned around it in floats; beyond, as with what is not finite, nothing is to be seen."""
    return isfinite(value) and (value == 0 or _SMALLEST < abs(value) < _LARGEST)


def _steps(
    shown: Mapping[str, Sequence[Point]], total: int, box: Box, *, growing: bool
) -> tuple[Scale, Sequence[float]]:
    first = min(points[0][0] for points in shown.values())
    last = max(points[-1][0] for points in shown.values())
    if total > first:
        end = float(max(total, last))
        return Scale(first, end, box.left, box.right), nice_ticks(first, end, whole=True, count=box.ticks)
    room = (last - first) * 1.25 + 4 if growing else last - first
    steps = nice_ticks(first, first + max(room, 1), whole=True, count=box.ticks)
    return Scale(first, max(steps[-1], last), box.left, box.right), steps


def _line(name: str, points: Sequence[Point], x: Scale, y: Scale, *, named: bool) -> Line:
    values = [value for _, value in points]
    metric = metric_of(name)
    return Line(
        name=name,
        label=(metric.label or metric.title) if named else "",
        points=" ".join(f"{x(step)},{y(value)}" for step, value in points),
        first=points[0],
        last=points[-1],
        lowest=min(values),
        highest=max(values),
        end=(x(points[-1][0]), y(points[-1][1])),
        is_sparse=metric.is_points or len(points) <= FEW_POINTS,
    )


#: of what is drawn: differences, ticks and tenths of it are floats, too
_SMALLEST, _LARGEST = 1e-250, 1e250
#: values this close, relative to their size, are one: between them no step is left that floats can count
_SAME = 1e-9


def nice_ticks(low: float, high: float, *, whole: bool = False, count: int = 5) -> list[float]:
    """About `count` round numbers that enclose `low` and `high`: multiples of 1, 2 or 5 times a power of ten."""
    largest = max(abs(low), abs(high))
    if high - low <= largest * _SAME:
        spread = largest * 0.1 or 1.0
        low, high = low - spread, high + spread
    step = _nice_step((high - low) / (count - 1))
    if whole:
        step = max(1.0, step)
    digits = max(0, 2 - floor(log10(step)))
    return [round(index * step, digits) for index in range(floor(low / step), ceil(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 and their tens that enclose two positive numbers; tens alone where these are many."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    factors = (1.0,) if len(powers) > 3 else (1.0, 2.0, 5.0)
    all_ = [factor * 10.0**power for power in powers for factor in factors]
    below = max((tick for tick in all_ if tick <= low), default=all_[0])
    above = min((tick for tick in all_ if tick >= high and tick > below), default=all_[-1] * 10)
    return [tick for tick in all_ if below <= tick <= above] + ([above] if above not in all_ else [])


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

"""Dot plots as numbers to put into an SVG: a line for each corpus, a dot for each form of the model on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Self

from publisher.dashboard.charts import Scale, Tick, nice_ticks, number
from publisher.dashboard.presentation import perplexity
from publisher.manifest.evaluation import PairedDifference

#: the SVG's own units
WIDTH, LEFT, RIGHT, TOP, BOTTOM, LINE = 460, 118, 24, 8, 38, 34
#: letters of a name that fit before the plot
_NAME = 16


@dataclass(frozen=True)
class Gains:
    """On one corpus, in nats per token that the loss falls by: with the recovered adapter, with `error` (standard
    error) where it is known, and with the direct one. `said` in words."""

    corpus: str
    recovered: float
    said: str
    error: float | None = None
    direct: float | None = None

    @classmethod
    def of(
        cls, corpus: str, values: Sequence[float | None], retained: float | None, gain: PairedDifference | None
    ) -> Self | None:
        """Of a row of VariantNumbers.certificate_rows; None where one of both perplexities is not known, or is none."""
        base, recovered, direct = values
        if base is None or recovered is None or any(value is not None and value < 1 for value in values):
            return None  # no model's: a perplexity is 1 or more
        said = f"{corpus}: perplexity {perplexity(base)} alone, {perplexity(recovered)} with the recovered adapter"
        return cls(
            corpus=corpus,
            recovered=log(base / recovered),
            said=said if direct is None else f"{said}, {perplexity(direct)} with the direct one",
            error=gain.standard_error if gain else None,
            direct=None if direct is None else log(base / direct),
        )


@dataclass(frozen=True)
class DotLine:
    """`y`, `base`, `recovered`, `direct` and both ends of the `spread` in the SVG's units."""

    name: str
    said: str
    y: float
    base: float
    recovered: float
    direct: float | None
    spread: tuple[float, float] | None


@dataclass(frozen=True)
class DotPlot:
    height: float
    bottom: float
    lines: list[DotLine]
    ticks: list[Tick]

    @property
    def has_direct(self) -> bool:
        return any(line.direct is not None for line in self.lines)


def draw_dot_plot(gains: Sequence[Gains]) -> DotPlot | None:
    """The spread is two standard errors to each side, as the verdict counts; None of nothing."""
    if not gains:
        return None
    reached = [0.0, *(value for each in gains for value in _reached(each))]
    ticks = nice_ticks(min(reached), max(reached))
    x = Scale(ticks[0], ticks[-1], LEFT, WIDTH - RIGHT)
    bottom = TOP + LINE * len(gains)
    return DotPlot(
        height=bottom + BOTTOM,
        bottom=bottom,
        lines=[_line(each, TOP + LINE * (place + 0.5), x) for place, each in enumerate(gains)],
        ticks=[Tick(x(tick), number(tick)) for tick in ticks],
    )


def _reached(gains: Gains) -> list[float]:
    around = 2 * (gains.error or 0.0)
    return [gains.recovered - around, gains.recovered + around, gains.direct or 0.0]


def _line(gains: Gains, y: float, x: Scale) -> DotLine:
    low, direct = gains.recovered - 2 * (gains.error or 0.0), gains.direct
    return DotLine(
        name=gains.corpus if len(gains.corpus) <= _NAME else f"{gains.corpus[: _NAME - 1]}…",
        said=gains.said,
        y=y,
        base=x(0.0),
        recovered=x(gains.recovered),
        direct=None if direct is None else x(direct),
        spread=None if gains.error is None else (x(low), x(gains.recovered + 2 * gains.error)),
    )

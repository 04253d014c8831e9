"""A plan as a page shows it: what is kept of each layer, drawn and in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from publisher.architecture.geometry import LayerWidths
from publisher.architecture.structure import Unit
from publisher.plan.plan import Plan

#: the drawing's own units: a row of bars for each kind of unit, with its name above it
WIDTH, ROW, BAR, TOP = 460, 74, 48, 20
#: of a list of layers; models whose layers alternate would have one line for each
MOST_LINES = 12
_WORDS = {Unit.KV_HEADS: "KV heads", Unit.NEURONS: "neurons", Unit.EXPERTS: "experts"}


@dataclass(frozen=True)
class Row:
    """`whole` and `kept` are SVG paths: what each layer had, and what stays of it."""

    title: str
    y: float
    whole: str
    kept: str


@dataclass(frozen=True)
class LayerRange:
    """Layers beside each other that keep the same: `units` is what, and out of how many."""

    first: int
    last: int
    units: tuple[tuple[str, int, int], ...]

    @property
    def name(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}–{self.last}"

    @property
    def words(self) -> str:
        return ", ".join(f"{kept:,} of {base:,} {word}" for word, kept, base in self.units)


@dataclass(frozen=True)
class KeptPerLayer:
    rows: list[Row]
    ranges: list[LayerRange]
    height: int

    @property
    def words(self) -> str:
        """All that the drawing says."""
        said = [f"layers {each.name} keep {each.words}" for each in self.ranges[:MOST_LINES]]
        return "; ".join(said) + ("; and so on" if len(self.ranges) > MOST_LINES else "")


def kept_per_layer(plan: Plan) -> KeptPerLayer:
    units = [unit for unit in Unit if any(width.counts[unit] for width in plan.base_widths)]
    rows = [_row(unit, TOP + index * ROW, plan.base_widths, plan.widths) for index, unit in enumerate(units)]
    return KeptPerLayer(rows, list(_ranges(units, plan.base_widths, plan.widths)), ROW * len(units))


def _row(unit: Unit, y: float, base: Sequence[LayerWidths], kept: Sequence[LayerWidths]) -> Row:
    most = max(width.counts[unit] for width in base)
    step = WIDTH / len(base)
    return Row(
        title=_WORDS[unit],
        y=y,
        whole="".join(_bar(index, step, y, width.counts[unit] / most) for index, width in enumerate(base)),
        kept="".join(_bar(index, step, y, width.counts[unit] / most) for index, width in enumerate(kept)),
    )


def _bar(index: int, step: float, y: float, share: float) -> str:
    """A rectangle that stands on the row's ground; layers are set apart where there is room for it."""
    gap = 1 if step > 4 else 0
    height = round(share * BAR, 1)
    return f"M{index * step:.1f} {y + BAR:g}h{step - gap:.1f}v-{height:g}h-{step - gap:.1f}z" if height else ""


def _ranges(units: Sequence[Unit], base: Sequence[LayerWidths], kept: Sequence[LayerWidths]) -> Iterator[LayerRange]:
    layers = list(zip(base, kept, strict=True))
    for pair, members in groupby(enumerate(layers), key=lambda layer: layer[1]):
        numbers = [number for number, _ in members]
        whole, left = pair[0].counts, pair[1].counts
        yield LayerRange(
            numbers[0], numbers[-1], tuple((_WORDS[unit], left[unit], whole[unit]) for unit in units if whole[unit])
        )

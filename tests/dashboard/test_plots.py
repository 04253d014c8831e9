"""Scatter, dot plot and heat map as numbers, before they are an SVG."""

from __future__ import annotations

import itertools

from publisher.dashboard import dot_plot, heat_map, scatter
from publisher.dashboard.charts import Tick
from publisher.dashboard.dot_plot import Gains, draw_dot_plot
from publisher.dashboard.heat_map import draw_heat_map
from publisher.dashboard.scatter import Axis, Spot, draw_scatter, pareto

MORE, LESS = Axis("reduction", more_is_better=True), Axis("perplexity", more_is_better=False)
TICKS = [Tick(0, "0"), Tick(10, "10")]


def spots(*places: tuple[float, float]) -> list[Spot]:
    return [Spot(f"s{number}", f"/{number}", x, y, "said") for number, (x, y) in enumerate(places)]


def test_the_front_is_what_nobody_beats() -> None:
    assert pareto(spots((1, 9), (2, 5), (3, 5), (3, 7), (9, 1)), MORE, MORE) == {0, 3, 4}
    assert pareto(spots((1, 9), (2, 5), (3, 5), (3, 7)), MORE, LESS) == {2}
    assert pareto(spots((1, 9), (2, 5), (3, 5), (3, 7)), LESS, LESS) == {0, 1}
    # two that are the same do not beat each other
    assert pareto(spots((2, 5), (2, 5)), MORE, MORE) == {0, 1}


def test_dots_stand_where_their_values_are_and_labels_beside_them() -> None:
    drawn = draw_scatter(spots((0, 0), (10, 10), (5, 5)), MORE, MORE, x_ticks=TICKS, y_ticks=TICKS)
    assert drawn is not None
    low, high, middle = drawn.dots
    assert (low.x, low.y) == (scatter.LEFT, scatter.HEIGHT - scatter.BOTTOM)
    assert (high.x, high.y) == (scatter.WIDTH - scatter.RIGHT, scatter.TOP)
    assert (middle.x, middle.y) == ((low.x + high.x) / 2, (low.y + high.y) / 2)
    assert (low.anchor, high.anchor) == ("start", "end")
    assert [dot.on_front for dot in drawn.dots] == [False, True, False]
    assert draw_scatter([], MORE, MORE) is None


def test_labels_of_dots_in_one_place_are_apart() -> None:
    drawn = draw_scatter(spots(*[(3, 3)] * 6), MORE, MORE, x_ticks=TICKS, y_ticks=TICKS)
    assert drawn is not None
    heights = sorted(dot.label_y for dot in drawn.dots)
    assert all(below - above >= 12 for above, below in itertools.pairwise(heights))
    many = draw_scatter(spots(*[(3, 3)] * 60), MORE, MORE, x_ticks=TICKS, y_ticks=TICKS)
    assert many is not None
    labelled = [dot for dot in many.dots if dot.label]
    assert 0 < len(labelled) < 60
    assert max(dot.label_y for dot in labelled) <= scatter.HEIGHT - scatter.BOTTOM


def test_gains_are_dots_from_the_base_model_on() -> None:
    drawn = draw_dot_plot([Gains("novel", 0.2, "said", error=0.05, direct=0.4), Gains("a" * 40, -0.1, "said")])
    assert drawn is not None
    first, second = drawn.lines
    assert first.base == second.base < first.recovered < (first.direct or 0)
    assert second.recovered < second.base
    assert first.spread is not None
    assert first.spread[0] < first.recovered < first.spread[1]
    assert round(first.spread[1] - first.spread[0], 1) == round((first.direct or 0) - first.recovered, 1)
    assert second.spread is None
    assert len(second.name) <= dot_plot._NAME
    assert draw_dot_plot([]) is None


def test_a_heat_map_has_a_cell_where_something_stayed() -> None:
    drawn = draw_heat_map("Kept", "said", "neuron", [[1.0, 1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0], []], 4)
    assert [level.share for level in drawn.levels] == [0.5, 1.0]
    half, full = drawn.levels
    width = heat_map.WIDTH - heat_map.RIGHT - heat_map.LEFT
    # neighbours that are alike are one cell
    assert full.path == f"M{heat_map.LEFT} {heat_map.TOP}h{width / 2:g}v14h-{width / 2:g}z"
    assert half.path.startswith(f"M{heat_map.LEFT + width / 2:g} ")
    assert drawn.y_ticks[0].label == "0"
    assert drawn.x_ticks[-1].label == "3"

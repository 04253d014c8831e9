"""Axes and lines by their properties."""

from __future__ import annotations

from itertools import pairwise
from math import inf, isfinite, log10, nan

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from publisher.dashboard.charts import draw, log_ticks, nice_ticks, number
from publisher.dashboard.presentation import amount

VALUES = st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-9)


@given(VALUES, VALUES)
@example(1e9, 999999999.9999999)
def test_ticks_enclose_the_values_in_even_round_steps(one: float, other: float) -> None:
    low, high = sorted((one, other))
    ticks = nice_ticks(low, high)
    spread = abs(high) + abs(low) + 1e-9
    assert ticks[0] <= low + 1e-6 * spread
    assert ticks[-1] >= high - 1e-6 * spread
    assert 2 <= len(ticks) <= 8
    gaps = [after - before for before, after in pairwise(ticks)]
    assert max(gaps) - min(gaps) < 1e-6 * spread


def test_step_of_ticks_is_one_two_or_five() -> None:
    for high in (0.03, 0.7, 1, 3.3, 8, 42, 999, 12345):
        first, second = nice_ticks(0, high)[:2]
        step = second - first
        assert round(step / 10 ** int(log10(step) // 1), 6) in (1, 2, 5)


@given(st.floats(1e-6, 1e9), st.floats(1e-6, 1e9))
@example(1.0, 1.0)
@example(7.0, 13000.0)
def test_logarithmic_ticks_enclose_the_values_and_rise(one: float, other: float) -> None:
    low, high = sorted((one, other))
    ticks = log_ticks(low, high)
    assert ticks[0] <= low * (1 + 1e-9)
    assert ticks[-1] >= high * (1 - 1e-9)
    assert all(before < after for before, after in pairwise(ticks))


def test_several_series_share_axes_that_hold_all_of_them() -> None:
    chart = draw({"loss": [(1, 9.0), (40, 2.0)], "held_out_loss": [(10, 11.0)]}, {"loss": 128}, growing=True)
    assert chart is not None
    assert [line.label for line in chart.lines] == ["training", "held out"]
    assert (chart.x.low, chart.x.high) == (1, 128)
    assert chart.y.low <= 2
    assert chart.y.high >= 11
    assert chart.told == "training 2 at step 40 · held out 11 at step 10"


def test_steps_beyond_what_was_planned_are_shown() -> None:
    chart = draw({"loss": [(1, 9.0), (200, 2.0)]}, {"loss": 128}, growing=False)
    assert chart is not None
    assert chart.x.high == 200


def test_line_lies_within_the_axes() -> None:
    chart = draw({"loss": [(step, 10 / step) for step in range(1, 300)]}, growing=True)
    assert chart is not None
    (line,) = chart.lines
    points = [tuple(map(float, pair.split(","))) for pair in line.points.split()]
    assert all(chart.x.start <= x <= chart.x.end and chart.y.end <= y <= chart.y.start for x, y in points)
    assert points[-1] == line.end
    assert points[-1][0] < chart.x.end


def test_values_that_are_no_numbers_are_left_out() -> None:
    assert draw({"loss": [(1, nan), (2, inf)]}, growing=False) is None
    chart = draw({"loss": [(1, nan), (2, 3.0)]}, growing=False)
    assert chart is not None
    assert chart.lines[0].first == chart.lines[0].last == (2, 3.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (2.10449, "2.104"), (76.62, "76.62"), (13540.4, "13,540"), (1e-4, "1e-4"), (-2.5e-5, "-2.5e-5")],
)
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_amounts_are_in_their_unit() -> None:
    assert amount(12345, "tokens") == "12,345"
    assert amount(85301888, "bytes") == "81.4 MiB"


@pytest.mark.parametrize(
    "values", [[1e-13], [1e-14, 3e-14], [5e-324], [0.0, 5e-324], [1e308, -1e308], [1.8e308, -1.8e308], [0.0, 1e-13]]
)
def test_numbers_at_the_edge_of_floats_break_no_page(values: list[float]) -> None:
    chart = draw({"kl": list(enumerate(values))}, growing=True)
    if chart is not None:
        assert all(isfinite(tick.at) for tick in (*chart.x_ticks, *chart.y_ticks))

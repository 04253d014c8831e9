"""What is learnt from earlier jobs, and what follows for those that wait."""

from __future__ import annotations

import pytest

from publisher.jobs.forecast import (
    MOST_OVERHEAD,
    PLANNED,
    Phase,
    Span,
    Speed,
    Turn,
    learn,
    left_of,
    left_of_stage,
    planned,
    start_of,
)

A, B = frozenset({"a"}), frozenset({"b"})
BOTH = A | B


def finished(**seconds: float) -> dict[str, dict[str, object]]:
    return {stage: {"state": "finished", "seconds": taken} for stage, taken in seconds.items()}


def test_a_stage_takes_the_median_of_those_that_made_it() -> None:
    reused = {"fetch": {"state": "reused", "seconds": 900.0}}
    earlier = [finished(fetch=10, align=100), reused | finished(align=300), reused | finished(align=120)]
    assert {stage: span.likely for stage, span in learn(earlier).items()} == {"fetch": 10, "align": 120}
    assert learn([]) == {}


def test_what_earlier_jobs_took_is_as_wide_as_they_differ() -> None:
    few = learn([finished(align=100)] * 2)["align"]
    alike = learn([finished(align=seconds) for seconds in (100, 101, 99)])["align"]
    unlike = learn([finished(align=seconds) for seconds in (50, 100, 200)])["align"]
    widths = [span.high / span.low for span in (alike, few, unlike)]
    assert widths == sorted(widths)
    assert unlike.low < 50 < 200 < unlike.high
    assert 70 < alike.low < 99
    assert 101 < alike.high < 140


def test_a_plan_is_wide_and_counts_what_it_does_not_know() -> None:
    long, short = (planned({"align": seconds})["align"] for seconds in (3600.0, 0.1))
    assert (long.low, long.high) == (3600 / PLANNED, 3600 * PLANNED + MOST_OVERHEAD)
    assert short.high > MOST_OVERHEAD


def exactly(**seconds: float) -> dict[str, Span]:
    return {stage: Span(taken / 2, taken, 2 * taken) for stage, taken in seconds.items()}


EXPECTED = exactly(fetch=10, align=100, publish=5)
ALIGNS = {"align": {"state": "started"}}


@pytest.mark.parametrize(
    ("stages", "running_for", "left"),
    [
        ({}, 0, 115),
        (finished(fetch=20) | ALIGNS, 20, 105),
        (finished(fetch=20) | ALIGNS, 60, 65),
        ({"fetch": {"state": "reused", "seconds": 999}} | ALIGNS, 40, 65),
    ],
)
def test_what_is_left_of_a_job(stages: dict[str, dict[str, object]], running_for: float, left: float) -> None:
    found = left_of(EXPECTED, stages, running_for)
    assert found is not None
    assert found.span.likely == left
    assert found.span.low < left < found.span.high
    assert found.share == running_for / (running_for + left)


def test_nothing_is_never_left_of_a_job_that_runs() -> None:
    late = left_of(EXPECTED, finished(fetch=20) | ALIGNS, 5000)
    over = left_of(EXPECTED, finished(fetch=9, align=80, publish=1), 90)
    assert late is not None
    assert over is not None
    assert late.span.likely > 5, "publish is still to come"
    assert late.span.high > 1000, "nobody knows when a stage ends that takes so long"
    assert over.span.likely > 0
    assert over.share < 1


def test_nothing_is_said_of_a_job_of_which_nothing_is_known() -> None:
    assert left_of({}, ALIGNS, 10) is None


def phase(done: float, at: float, unit: str = "tokens") -> Phase:
    return Phase(unit, 0.0, 10.0, done, 1000.0, at)


def test_a_stage_s_own_speed_counts_the_more_the_further_it_is() -> None:
    """Ten times as slow as expected: 1 a second, from 10 seconds after its start."""
    expected = Span(50, 100, 200)
    said = [left_of_stage(expected, at, Speed.of("align", phase(at - 10, at), at)) for at in (12, 110, 260, 510, 960)]
    truth = [1010 - at for at in (12, 110, 260, 510, 960)]
    assert said[0].likely == pytest.approx(88, rel=0.15)
    for span, left in list(zip(said, truth, strict=True))[2:]:
        assert span.low < left < span.high
    assert said[4].high - said[4].low < said[3].high - said[3].low < said[2].high - said[2].low


def test_what_was_done_before_a_resume_says_nothing_of_the_speed() -> None:
    resumed = left_of_stage(None, 40, Speed.of("align", Phase("tokens", 600, 0.0, 700, 1000, 40.0), 40))
    assert resumed.low < 120 < resumed.high


def test_a_phase_that_is_not_the_last_only_says_what_is_still_to_come_of_itself() -> None:
    """Layers are reconstructed at first, quickly; training takes long."""
    layers = phase(900, 19, "layers")
    early = left_of(exactly(align=100), ALIGNS, 19, phase=layers)
    assert early is not None
    assert early.span.likely == pytest.approx(81)
    # and slowly, where training was expected to be over
    slow = left_of(exactly(align=20), ALIGNS, 210, phase=phase(500, 210, "layers"))
    assert slow is not None
    assert slow.span.low > 100


def test_a_silent_stage_is_taken_to_have_gone_on() -> None:
    told = Phase("tokens", 0, 0, 500, 1000, 50)
    soon, later, late = (left_of_stage(None, spent, Speed.of("align", told, spent)) for spent in (50, 90, 500))
    assert later.likely < soon.likely
    assert late.high >= 50


def test_a_stage_that_counts_unlike_things_is_not_held_to_its_first_speed() -> None:
    """Windows of text are quick, steps of training are not."""
    told = Phase("windows, steps", 0, 0, 250, 1000, 10)
    uneven = left_of_stage(Span(60, 120, 240), 10, Speed.of("evaluate", told, 10))
    even = left_of_stage(Span(60, 120, 240), 10, Speed.of("align", Phase("tokens", 0, 0, 250, 1000, 10), 10))
    assert uneven.low < 90 < uneven.high
    assert even.high < 90


def test_jobs_before_take_the_first_worker_that_is_free() -> None:
    free = {"a": 0.0, "b": 30.0}
    assert start_of(BOTH, [], free) == 0
    assert start_of(BOTH, [Turn(BOTH, 100)], free) == 30
    assert start_of(BOTH, [Turn(BOTH, 100), Turn(BOTH, 100)], free) == 100
    assert start_of(B, [Turn(BOTH, 100), Turn(A, 100)], free) == 30


def test_jobs_for_other_workers_are_not_in_the_way() -> None:
    assert start_of(A, [Turn(B, 1000)] * 3, {"a": 5.0, "b": 0.0}) == 5


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert start_of(frozenset(), [], {"a": 0.0}) is None
    assert start_of(A, [Turn(A, None)], {"a": 0.0}) is None
    assert start_of(A, [], {"a": None}) is None
    assert start_of(BOTH, [Turn(A, None)], {"a": 0.0, "b": 7.0}) == 7

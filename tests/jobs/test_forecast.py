"""What is learnt from earlier jobs, and what follows for those that wait."""

from __future__ import annotations

import pytest

from publisher.jobs.forecast import Turn, learn, remaining, start_of

A, B = frozenset({"a"}), frozenset({"b"})
BOTH = A | B


def finished(**seconds: float) -> dict[str, dict[str, object]]:
    return {stage: {"state": "finished", "seconds": taken} for stage, taken in seconds.items()}


def test_a_stage_takes_the_median_of_those_that_made_it() -> None:
    reused = {"fetch": {"state": "reused", "seconds": 900.0}}
    earlier = [finished(fetch=10, align=100), reused | finished(align=300), reused | finished(align=120)]
    assert learn(earlier) == {"fetch": 10, "align": 120}
    assert learn([]) == {}


EXPECTED = {"fetch": 10.0, "align": 100.0, "publish": 5.0}


@pytest.mark.parametrize(
    ("stages", "running_for", "left"),
    [
        ({}, 0, 115),
        (finished(fetch=20) | {"align": {"state": "started"}}, 20, 105),
        (finished(fetch=20) | {"align": {"state": "started"}}, 60, 65),
        (finished(fetch=20) | {"align": {"state": "started"}}, 500, 5),
        ({"fetch": {"state": "reused", "seconds": 999}, "align": {"state": "started"}}, 40, 65),
        (finished(fetch=9, align=80, publish=1), 90, 0),
    ],
)
def test_what_is_left_of_a_job(stages: dict[str, dict[str, object]], running_for: float, left: float) -> None:
    assert remaining(EXPECTED, stages, running_for) == left


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

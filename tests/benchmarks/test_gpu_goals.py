"""Goals are judged by a run's own figures, and floors are what the arithmetic takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.benchmarks import gpu_headline, gpu_table8, gpu_user
from tests.benchmarks.gpu_cases import Case
from tests.benchmarks.gpu_models import LLAMA_2_7B
from tests.benchmarks.gpu_publisher_goals import floor_of, judge
from tests.benchmarks.gpu_report import BANDWIDTH, PEAK_FLOPS, Goals

STAGES = {"calibrate": {"seconds": 100.0}, "prune": {"seconds": 20.0}}
ALIGNED = {"parameters": 10**9, "base_parameters": 2 * 10**9, "tokens": 131_072, "training": 2.0}
ROWS: dict[str, dict[str, Any]] = {
    "taylor": {"stages": STAGES},
    "next token": ALIGNED | {"recipe": "next token"},
    "gradient matching": ALIGNED | {"recipe": "gradient matching", "training": 5.0, "reconstruction": 60.0},
    "next token alone": {"seconds": 10.0, "peak": 100},
    "Trainer": {"seconds": 15.0, "peak": 190},
}


def said(capsys: pytest.CaptureFixture[str], *, tiny: bool = False) -> dict[str, str]:
    judge("1B", ROWS, 131_072, Goals(tiny))
    lines = [line.removeprefix("goal: 1B: ") for line in capsys.readouterr().out.splitlines()]
    return {" ".join(line.split()[:3]): line.rpartition(": ")[2] for line in lines}


def test_goals_of_the_publisher_are_judged_by_its_own_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys) == {
        "tokens a second": "met",  # 1.5 times the Trainer's
        "peak by next": "MISSED",  # 0.53 of it
        "MFU by next": "met",  # 6 * 10⁹ * 65,536 of 989 * 10¹²: 0.40
        "time of a": "MISSED",  # 2.5
        "minutes to prune": "met",  # 3
    }


def test_of_a_tiny_model_no_goal_is_met_or_missed(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(said(capsys, tiny=True).values()) == {"of a tiny model, says nothing about the goal"}


def test_a_side_that_failed_leaves_its_goal_open(capsys: pytest.CaptureFixture[str]) -> None:
    judge("1B", ROWS | {"Trainer": {"refused": "out of memory"}}, 131_072, Goals(tiny=False))
    assert capsys.readouterr().out.splitlines()[0] == "goal: 1B: next token beside a Trainer: no figure"


def test_matching_gradients_cannot_take_twice_the_time_and_its_goal_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [ROWS[name] for name in ("next token", "gradient matching")]
    plain, matched = (floor_of(row, 131_072) for row in rows)
    assert plain is not None
    assert matched is not None
    assert matched / plain == pytest.approx(
        6.0
    )  # twice in TF32, at half the speed, and the base's forward and backward
    judge("1B", ROWS, 131_072, Goals(tiny=False))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "gradient matching, of" in line]
    assert line.endswith("2.500 (≤ 2; by the arithmetic at least 6.0): MISSED")


def test_a_goal_that_the_arithmetic_allows_is_not_marked(capsys: pytest.CaptureFixture[str]) -> None:
    Goals(tiny=False).say("time", 3.0, most=4, possible=2.0)
    assert capsys.readouterr().out == "goal: time 3.000 (≤ 4): met\n"


@pytest.mark.parametrize("module", [gpu_headline, gpu_table8, gpu_user])
def test_every_training_of_a_benchmark_has_a_name_of_its_own(module: Any) -> None:
    names = [case.name for case in module.cases(True)]
    assert len(set(names)) == len(names)


def test_the_floor_of_a_step_is_its_arithmetic_or_its_bytes() -> None:
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096)
    head = 32000 * 4096
    case = Case("none", "7B", "7B", LLAMA_2_7B, None, length=512, four_bit=False, checkpointing=False)
    assert case.floor == pytest.approx(2 * 512 * (2 * layers + 2 * head) / PEAK_FLOPS)
    assert replace(case, length=1).floor == pytest.approx(2 * (2 * layers + 2 * head) / BANDWIDTH)
    assert replace(case, checkpointing=True).floor == pytest.approx(2 * 512 * (3 * layers + 2 * head) / PEAK_FLOPS)

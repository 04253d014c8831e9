"""The check of a GPU, where there is none: its parts on the CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import RequestFault
from tests.benchmarks import gpu_check
from tests.benchmarks.gpu_check_build import CORPORA, Made, real_demo
from tests.benchmarks.gpu_check_compare import compare, said
from tests.benchmarks.gpu_check_tests import TESTS, marked_files, run_tests

NEURONS = "model.layers.3.neurons"

SMALL = """
import pytest

@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("right", [True, False])
def test_on_each(device, right):
    assert device == "cpu"
    assert right, "this one fails"

@pytest.mark.gpu
def test_on_a_gpu_alone():
    pass

def test_of_no_device():
    pass
"""


def made(kept: list[int], *, scores: list[float] | None = None, gain: float = 0.10, error: float = 0.01) -> Made:
    return Made(
        inputs={"model.safetensors": "a"},
        seconds={},
        peaks={},
        speeds={},
        kept={NEURONS: kept},
        scores={NEURONS: scores or [4.0, 3.0, 2.0, 2.0, 1.0]},
        figures={"gain, nats": gain, "gain's standard error": error, "gain retained": 0.5},
        verdict="passed",
    )


def test_a_tie_that_falls_the_other_way_is_told_from_another_choice() -> None:
    wanted = made([0, 1, 2])
    (same,) = compare(made([0, 1, 2]), wanted).layers
    assert (same.equal, same.furthest, same.scores) == (1.0, 0.0, 0.0)
    (tie,) = compare(made([0, 1, 3]), wanted).layers
    assert (tie.equal, tie.furthest) == (pytest.approx(2 / 3), 0.0)
    (other,) = compare(made([0, 1, 4], scores=[4.0, 3.0, 2.0, 2.0, 1.1]), wanted).layers
    assert (other.equal, other.furthest) == (pytest.approx(2 / 3), 0.5)


def test_all_units_are_kept_where_the_masks_name_none() -> None:
    (layer,) = compare(made([0, 1, 2, 3]), made([0, 1, 2, 3]).model_copy(update={"kept": {}})).layers
    assert (layer.kept, layer.equal, layer.furthest) == (5, 0.8, 0.0)


@pytest.mark.parametrize(("gain", "within"), [(0.10, True), (0.128, True), (0.129, False), (0.07, False)])
def test_a_gain_is_within_two_standard_errors_of_the_difference_or_not(gain: float, within: bool) -> None:
    comparison = compare(made([0], gain=gain), made([0]))
    assert comparison.within_noise is within
    assert ("NOT WITHIN" in "\n".join(said(comparison))) is not within


@pytest.mark.parametrize(
    ("kept", "figures", "said_of"),
    [
        ([0, 1, 4], {}, "50% from the cut"),
        ([0, 1, 2], {"perplexity, published": 60.0}, "perplexity, published: 60.0000, on the CPU 50.0000"),
        ([0, 1, 2], {"alignment's last loss": float("nan")}, "alignment's last loss: nan"),
        ([0, 1, 2], {"gain, nats": None}, "gain, nats: none"),
        ([0, 1, 2], {"gain's standard error": 1e9, "gain, nats": 0.5}, "gain, nats: 0.5000"),
    ],
)
def test_what_is_more_than_rounding_and_noise_is_named(
    kept: list[int], figures: dict[str, float | None], said_of: str
) -> None:
    wanted = made([0, 1, 2])
    wanted = wanted.model_copy(
        update={"figures": wanted.figures | {"perplexity, published": 50.0, "alignment's last loss": 2.0}}
    )
    found = wanted.model_copy(update={"kept": {NEURONS: kept}, "figures": wanted.figures | figures})
    assert compare(wanted, wanted).within_noise
    (beyond,) = compare(found, wanted).beyond
    assert said_of in beyond


def test_other_inputs_are_named_first() -> None:
    found = made([0]).model_copy(update={"inputs": {"model.safetensors": "b"}})
    assert next(said(compare(found, made([0])))) == "NOT THE SAME INPUTS: model.safetensors"


def test_layers_that_one_side_lacks_are_said() -> None:
    other = made([0]).model_copy(update={"kept": {"model.layers.9.neurons": [0]}, "scores": {}})
    comparison = compare(other, made([0]))
    assert comparison.lacking == [
        f"{NEURONS}: scores are only in the CPU's result",
        "model.layers.9.neurons: no scores",
    ]
    smaller = made([0], scores=[1.0, 2.0])
    assert f"NOT COMPARED: {NEURONS}: 2 in this run, 5 in the CPU's result" in said(compare(smaller, made([0])))


def test_the_comparison_says_whose_figures_are_in_which_column() -> None:
    lines = list(said(compare(made([0], gain=0.11), made([0]))))
    heading = next(number for number, line in enumerate(lines) if "CPU result" in line)
    assert lines[heading].split() == ["this", "run", "CPU", "result"]
    assert lines[heading + 1].split() == ["gain,", "nats", "0.1100", "0.1000"]


@pytest.mark.parametrize("text", [None, "", '{"rows": [{"ma', "[]", '{"rows": []}', '{"rows": [{"made": {}}]}'])
def test_a_result_of_a_cpu_that_is_missing_or_damaged_is_said_before_anything_runs(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cpu.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit) as ended:
        gpu_check.main(["--work", str(tmp_path), "--device", "cpu", "--tiny", "--cpu-result", str(path)])
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"--cpu-result {path} ")
    assert told.err.count("\n") == 1


def test_nothing_is_built_of_other_inputs_than_the_cpu_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cpu, out = tmp_path / "cpu.json", tmp_path / "out.json"
    cpu.write_text(json.dumps({"rows": [{"made": made([0]).model_dump()}]}))
    arguments = ["--work", str(tmp_path), "--device", "cpu", "--tiny", "--only", "build", "--out", str(out)]
    assert gpu_check.main([*arguments, "--cpu-result", str(cpu)]) == 1
    assert "NOT THE SAME INPUTS: model.safetensors, classics.jsonl" in capsys.readouterr().out
    told = json.loads(out.read_text())
    assert told["tiny"] is True
    assert [row["build"] for row in told["rows"]] == ["not begun"]


def test_each_test_of_a_device_is_told_with_what_a_failure_said(tmp_path: Path) -> None:
    (tmp_path / "test_small.py").write_text(SMALL)
    told: list[Mapping[str, Any]] = []
    assert run_tests("cpu", told.append, [tmp_path / "test_small.py"]) is False
    outcomes = {row["test"].partition("::")[2]: row["outcome"] for row in told}
    assert outcomes == {"test_on_each[True-cpu]": "passed", "test_on_each[False-cpu]": "failed"}
    assert "this one fails" in next(row["said"] for row in told if row["outcome"] == "failed")


def test_files_with_tests_of_a_gpu_are_found() -> None:
    found = {path.name for path in marked_files()}
    assert {"test_evaluate.py", "test_states.py"} < found
    marking = {path.name for path in TESTS.rglob("test_*.py") if ".mark.gpu" in path.read_text()}
    assert marking == {Path(__file__).name}, "what marks tests by itself is not found: use tests.devices"


def test_text_that_is_missing_is_named_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / f"{CORPORA[0]}.jsonl").touch()
    with pytest.raises(RequestFault, match=r"lacks python-docs\.jsonl, novel\.jsonl"):
        real_demo(tmp_path, tmp_path, tmp_path)


@pytest.mark.long
def test_the_tiny_recipe_is_built_and_compared_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--work", str(tmp_path), "--device", "cpu", "--tiny", "--only", "build"]
    assert gpu_check.main([*arguments, "--out", str(tmp_path / "cpu.json")]) == 0
    made = gpu_check.read_made(tmp_path / "cpu.json")
    assert made.kept
    assert made.peaks.keys() == {"align", "reconstruction", "probe", "direct"}
    again = [*arguments, "--out", str(tmp_path / "again.json"), "--cpu-result", str(tmp_path / "cpu.json")]
    assert gpu_check.main(again) == 0
    assert "kept units that both kept: 100.0000%" in capsys.readouterr().out
    rows = json.loads((tmp_path / "again.json").read_text())["rows"]
    assert next(row["stage"] for row in rows if "stage" in row) == "fetch"
    assert rows[-1]["comparison"]["within_noise"] is True

"""Cut at any step and gone on with: the same bits as in one go, whatever the optimizer and the checkpoint selection."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from publisher.errors import JobCancelled
from publisher.recipe import Optimizer
from tests.devices import gpu
from tests.worker.alignment.builds import STEPS, CancellingContext, prepare, request
from worker.alignment.distributed.ranks import Alone
from worker.alignment.state import TrainingProgress, TrainingState, save_state
from worker.context import RecordingContext
from worker.stages.align import stage as align


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums depend on the number of threads in their last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


#: one of each kind of state; all the others are long
_SHORT = (Optimizer.ADAMW, Optimizer.MUON, Optimizer.GALORE_ADAMW_8BIT)


def _aligned(
    folder: Path, name: str, context: RecordingContext | None = None, *, device: str = "cpu", **alignment: Any
) -> Path:
    asked = replace(request(folder, **alignment), device=device)
    align.run(asked, prepare(folder), folder / name, context or RecordingContext())
    return folder / name


def _assert_near(left: Path, right: Path) -> None:
    """On a GPU sums are made in another order each time."""
    reports = [json.loads((folder / "alignment.json").read_bytes()) for folder in (left, right)]
    assert reports[0]["loss"] == pytest.approx(reports[1]["loss"], rel=2e-2)
    assert len(reports[0]["loss"]) == STEPS


def _assert_same(left: Path, right: Path) -> None:
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (left, right))
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    reports = [json.loads((folder / "alignment.json").read_bytes()) for folder in (left, right)]
    for key in ("loss", "checks", "step", "optimizer_state_bytes", "skipped_steps"):
        assert reports[0][key] == reports[1][key]


def _cut_and_resumed(folder: Path, steps: int, more: int = 0, **alignment: Any) -> Path:
    with pytest.raises(JobCancelled):
        _aligned(folder, "cut", CancellingContext(steps=steps, checks=more), **alignment)
    return _aligned(folder, "cut", **alignment)


@pytest.mark.parametrize(
    ("name", "device"),
    [
        *(pytest.param(name, "cpu", marks=[] if name in _SHORT else [pytest.mark.long]) for name in Optimizer),
        *(pytest.param(name, "cuda", marks=gpu) for name in _SHORT),
    ],
)
def test_every_optimizer_goes_on_to_the_same_bits(tmp_path: Path, name: Optimizer, device: str) -> None:
    alignment = {"optimizer": name, "rank": 8, "device": device}
    whole, cut = _aligned(tmp_path, "whole", **alignment), _cut_and_resumed(tmp_path, 5, **alignment)
    (_assert_same if device == "cpu" else _assert_near)(whole, cut)


@pytest.mark.parametrize(
    ("device", "generators", "goes_on"),
    [("cpu", ["cpu"], True), ("cpu", ["cpu", "cuda"], False), ("cuda", ["cpu"], False)],
    ids=["the same", "of a GPU", "of a CPU"],
)
def test_a_state_of_another_kind_of_device_is_left(
    tmp_path: Path, device: str, generators: list[str], goes_on: bool
) -> None:
    tensors = {f"random.{kind}": torch.get_rng_state() for kind in generators}
    save_state(tmp_path / "state.safetensors", TrainingState(tensors, TrainingProgress(steps=3), "{}"))
    said: list[str] = []
    found = Alone(torch.device(device)).load(tmp_path / "state.safetensors", said.append)
    assert (found is not None) is goes_on
    assert any("of another kind of device: alignment starts over" in message for message in said) is not goes_on


@pytest.mark.parametrize(
    "name", [Optimizer.ADAMW, Optimizer.MUON, pytest.param(Optimizer.ADAMW_8BIT, marks=pytest.mark.long)]
)
def test_lora_goes_on_to_the_same_bits(tmp_path: Path, name: Optimizer) -> None:
    alignment = {"optimizer": name, "rank": 4, "trainable": "low_rank"}
    _assert_same(_aligned(tmp_path, "whole", **alignment), _cut_and_resumed(tmp_path, 5, **alignment))


@pytest.mark.parametrize("more", range(4), ids=lambda more: f"{more} checks later")
def test_a_cut_around_a_look_at_held_out_text_changes_nothing(tmp_path: Path, more: int) -> None:
    """At step 6 of 12: after the step, in the middle of the measuring, and after it."""
    alignment = {"stop": "held_out", "checks": 4, "patience": 4}
    _assert_same(_aligned(tmp_path, "whole", **alignment), _cut_and_resumed(tmp_path, 6, more, **alignment))


@pytest.mark.parametrize(
    "name", [Optimizer.GALORE_ADAMW_8BIT, pytest.param(Optimizer.APOLLO_ADAMW, marks=pytest.mark.long)]
)
def test_killed_with_sigkill_and_resumed_gives_the_same_bits(tmp_path: Path, name: Optimizer) -> None:
    alignment = {"optimizer": name, "rank": 8, "stop": "held_out", "checks": 3, "patience": 3}
    whole = _aligned(tmp_path, "whole", **alignment)
    command = [sys.executable, "-m", "tests.worker.alignment.builds", str(tmp_path), str(tmp_path / "cut")]
    with subprocess.Popen([*command, json.dumps(alignment)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline().endswith("tokens\n")
        process.kill()
        process.stdout.read()
        assert process.wait() == -9
    context = RecordingContext()
    _assert_same(whole, _aligned(tmp_path, "cut", context, **alignment))
    assert any("goes on after step" in message for message in context.messages)

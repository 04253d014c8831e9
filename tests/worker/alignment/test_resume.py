"""Cut at any step and gone on with: the same bits as in one go, whatever the optimizer and the checkpoint selection."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from publisher.errors import JobCancelled
from publisher.recipe import Optimizer
from tests.worker.alignment.builds import CancellingContext, prepare, request
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


def _aligned(folder: Path, name: str, context: RecordingContext | None = None, **alignment: Any) -> Path:
    align.run(request(folder, **alignment), prepare(folder), folder / name, context or RecordingContext())
    return folder / name


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
    "name", [pytest.param(name, marks=[] if name in _SHORT else [pytest.mark.long]) for name in Optimizer]
)
def test_every_optimizer_goes_on_to_the_same_bits(tmp_path: Path, name: Optimizer) -> None:
    alignment = {"optimizer": name, "rank": 8}
    _assert_same(_aligned(tmp_path, "whole", **alignment), _cut_and_resumed(tmp_path, 5, **alignment))


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

"""Two processes over gloo train what one trains, go on where they were killed, and end together."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.errors import InfrastructureFault, JobCancelled, RequestFault
from publisher.recipe import Optimizer, PruningMethod
from tests.devices import CUDA
from tests.worker.alignment.builds import AS_SEVERAL_DEVICES, STEPS, prepare, request
from worker.context import RecordingContext
from worker.stages.align import stage as align
from worker.stages.align.work import AlignWork

TWO = ("cpu", "cpu")
#: One row goes through a model at once, and two processes do not get as many.
THREE_ROWS = {"sequence_length": 512, "batch_tokens": 3 * 512, "tokens": STEPS * 3 * 512}


@dataclass
class Interrupting(RecordingContext):
    """Does `act` once, when `steps` steps are done."""

    steps: int = 0
    act: Callable[[], None] | None = None
    fractions: list[float] = field(default_factory=list)

    def progress(self, done: float, total: float, unit: str) -> None:
        super().progress(done, total, unit)
        self.fractions.append(self.fraction)
        if self.act is not None and len(self.fractions) == self.steps:
            self.act()


def _ranks() -> list[int]:
    return [process.pid for process in multiprocessing.active_children() if process.pid is not None]


def _kill_all() -> None:
    for process in _ranks():
        os.kill(process, signal.SIGKILL)


def _kill_one() -> None:
    for process in _ranks():  # before torch was loaded: tests/worker/test_idle_threads.py says why
        assert b"OMP_WAIT_POLICY=PASSIVE" in Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    os.kill(_ranks()[1], signal.SIGKILL)


def _cancel() -> None:
    raise JobCancelled("cancelled by the test.")


def _aligned(
    folder: Path,
    name: str,
    devices: tuple[str, ...] = TWO,
    context: RecordingContext | None = None,
    *,
    tied: bool = False,
    dropout: float = 0.0,
    **alignment: Any,
) -> Path:
    """The weights of the last step, in fp32, are in state/best.safetensors: they are looked at once, and at the end."""
    inputs = prepare(folder, tied=tied, dropout=dropout)
    asked = replace(request(folder, **({"stop": "held_out", "checks": 1} | alignment)), devices=devices)
    align.run(asked, inputs, folder / name, context or RecordingContext(), save_seconds=0)
    assert _ranks() == []
    return folder / name


def _report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "alignment.json").read_bytes())
    return report


def _assert_alike(one: Path, two: Path) -> None:
    reports = _report(one), _report(two)
    assert len(reports[0]["loss"]) == STEPS
    assert reports[1]["loss"] == pytest.approx(reports[0]["loss"], rel=1e-4)
    assert reports[1]["checks"][0]["loss"] == pytest.approx(reports[0]["checks"][0]["loss"], rel=1e-4)
    assert reports[1]["optimizer_state_bytes"] == reports[0]["optimizer_state_bytes"]
    weights = [load_file(folder / "state" / "best.safetensors") for folder in (one, two)]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=1e-5)
    models = [load_file(folder / "model" / "model.safetensors") for folder in (one, two)]
    torch.testing.assert_close(models[1], models[0], rtol=2**-7, atol=1e-5)


@pytest.mark.parametrize(
    "alignment",
    [
        pytest.param(
            {"objective": "language_model", "tied": True, "quantization_aware": False}, marks=pytest.mark.long
        ),
        {"objective": "distillation", "hidden_states_weight": 0.5, **AS_SEVERAL_DEVICES, **THREE_ROWS},
        pytest.param({"trainable": "low_rank", "rank": 4, "activation_checkpointing": True}, marks=pytest.mark.long),
    ],
    ids=["language_model of tied embeddings", "distillation of three rows", "low_rank"],
)
def test_two_processes_train_what_one_trains(tmp_path: Path, alignment: dict[str, Any]) -> None:
    context = Interrupting()
    _assert_alike(_aligned(tmp_path, "one", (), **alignment), _aligned(tmp_path, "two", TWO, context, **alignment))
    assert context.fractions == pytest.approx([(step + 1) / STEPS for step in range(STEPS)])
    assert [step for name, step, _ in context.metrics if name == "loss"] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.long), CUDA])
def test_one_process_of_its_own_trains_what_this_one_does(tmp_path: Path, device: str) -> None:
    """What several GPUs do, on one: NCCL beside gloo, weights in parts, and states of their own."""
    place, inputs = device if device == "cpu" else f"{device}:0", prepare(tmp_path, dropout=0.0)
    alone = replace(request(tmp_path, stop="held_out", checks=1, **AS_SEVERAL_DEVICES), device=place)
    align.run(alone, inputs, tmp_path / "alone", RecordingContext())
    work = AlignWork(replace(alone, devices=(place,)), inputs, tmp_path / "out", RecordingContext())
    work.state.mkdir(parents=True)
    trained = work._train_on_devices(work.text(), save_seconds=0)
    wanted = _report(tmp_path / "alone")["loss"]
    assert trained.progress.losses == pytest.approx(wanted, rel={"cpu": 1e-4, "cuda": 1e-2}[device])
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()


def test_killed_or_cancelled_they_go_on_to_the_same_weights(tmp_path: Path) -> None:
    """With dropout: the random numbers of each process go on, too."""
    whole = _aligned(tmp_path, "whole", dropout=0.1)
    with pytest.raises(InfrastructureFault, match="died from SIGKILL"):
        _aligned(tmp_path, "cut", context=Interrupting(steps=4, act=_kill_all), dropout=0.1)
    again = Interrupting(steps=3, act=_cancel)
    with pytest.raises(JobCancelled):
        _aligned(tmp_path, "cut", context=again, dropout=0.1)
    last = RecordingContext()
    cut = _aligned(tmp_path, "cut", context=last, dropout=0.1)
    resumed = [int(message.split()[5]) for context in (again, last) for message in context.messages[:1]]
    assert 0 < resumed[0] < resumed[1]
    assert _report(cut)["loss"] == _report(whole)["loss"]
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (whole, cut)]
    assert [name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])] == []


def test_one_that_dies_takes_the_others_down_and_one_device_starts_over(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureFault, match="the process that aligned on cpu died from SIGKILL"):
        _aligned(tmp_path, "out", context=Interrupting(steps=2, act=_kill_one))
    assert _ranks() == []
    alone = RecordingContext()
    _aligned(tmp_path, "out", (), alone)
    assert "of several devices: alignment starts over on one" in alone.messages[0]


def test_what_one_raises_is_the_error_of_the_stage(tmp_path: Path) -> None:
    """Weights that are no numbers are the request's fault, found by both at once."""
    inputs = prepare(tmp_path)
    weights = load_file(inputs.pruned / "model.safetensors")
    weights["model.norm.weight"].fill_(torch.nan)
    save_file(weights, inputs.pruned / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestFault, match="alignment diverged at step 1") as raised:
        align.run(replace(request(tmp_path), devices=TWO), inputs, tmp_path / "out", RecordingContext())
    assert raised.value.field == "recipe.alignment.learning_rate"
    assert _ranks() == []


@pytest.mark.parametrize("name", [name for name in Optimizer if name is not Optimizer.ADAMW])
def test_an_optimizer_that_needs_whole_weights_is_refused(tmp_path: Path, name: Optimizer) -> None:
    with pytest.raises(RequestFault, match=f'{name} cannot train .* Set alignment.optimizer to "adamw", or'):
        _aligned(tmp_path, "out", optimizer=name)
    assert not (tmp_path / "out").exists()


def test_compiled_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestFault, match=r"compile has not been tried .* Leave it out, or"):
        _aligned(tmp_path, "out", compile=True)


def test_weights_pruned_one_by_one_are_refused(tmp_path: Path) -> None:
    inputs, asked = prepare(tmp_path), request(tmp_path)
    pruning = asked.recipe.pruning.model_copy(update={"method": PruningMethod.UNSTRUCTURED})
    recipe = asked.recipe.model_copy(update={"pruning": pruning})
    with pytest.raises(RequestFault, match="removes single weights, and 2 devices"):
        align.run(replace(asked, recipe=recipe, devices=TWO), inputs, tmp_path / "out", RecordingContext())

"""Steps without a usable loss or gradient are skipped and counted; when they persist, alignment fails."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.errors import RequestFault
from publisher.recipe import Objective
from tests.models import tiny_llama
from tests.worker.alignment.builds import BATCH_TOKENS, LENGTH, prepare, request
from worker.alignment.spikes import take_step
from worker.alignment.state import TrainingProgress
from worker.alignment.training import Training
from worker.context import RecordingContext
from worker.models.causal import load_causal
from worker.models.head import head_of
from worker.stages.align import stage as align
from worker.training.batch_loss import NextToken
from worker.training.schedule import Schedule


@dataclass(frozen=True)
class TooFastAfter(Schedule):
    """From step `sane` on every weight moves by 1,000 a step, the final norm's too."""

    sane: int = 0

    def learning_rate(self, step: int) -> float:
        return self.peak if step < self.sane else 1e3


def _progress(count: int) -> TrainingProgress:
    progress = TrainingProgress()
    for step in range(count):
        assert take_step(progress, 3.0 + 0.1 * math.sin(step), 1.0 + 0.1 * math.cos(step))
        progress.steps += 1
    return progress


@pytest.mark.parametrize(
    ("loss", "norm"),
    [(math.nan, 1.0), (math.inf, 1.0), (3.0, math.nan), (3.0, math.inf), (30.0, 1.0), (3.0, 30.0)],
)
def test_no_numbers_and_outliers_are_skipped(loss: float, norm: float) -> None:
    progress = _progress(20)
    assert not take_step(progress, loss, norm)
    assert progress.skipped_steps == 1
    assert len(progress.recent_losses) == 20
    assert take_step(progress, 3.0, 1.0)


def test_a_fall_is_no_spike_and_few_steps_are_no_measure() -> None:
    assert take_step(_progress(20), 0.1, 0.01)
    assert take_step(_progress(15), 30.0, 30.0)


def test_the_window_holds_the_last_128() -> None:
    progress = _progress(200)
    assert len(progress.recent_losses) == len(progress.recent_norms) == 128


def test_ten_in_a_row_are_a_failure_and_nine_are_not() -> None:
    progress = _progress(20)
    for _ in range(9):
        assert not take_step(progress, 50.0, 1.0)
        progress.steps += 1
    with pytest.raises(RequestFault, match=r"step 30: loss 50.0.*This and the 9 steps before it were skipped"):
        take_step(progress, 50.0, 1.0)


def test_batches_with_a_broken_token_are_left_out(tmp_path: Path) -> None:
    """Tilde's embedding is NaN: every batch with a tilde has a NaN loss, and no other weight becomes one."""
    inputs = prepare(tmp_path)
    lines = ["the whale swims ~ " * 4 if number % 25 == 24 else "the whale swims " * 4 for number in range(200)]
    (tmp_path / "sea.jsonl").write_text("\n".join(json.dumps({"text": f"{n}: {line}"}) for n, line in enumerate(lines)))
    file = inputs.pruned / "model.safetensors"
    weights = load_file(file)
    weights["model.embed_tokens.weight"][ord("~") - ord("!")] = math.nan  # the byte alphabet begins with "!"
    save_file(weights, file, metadata={"format": "pt"})
    context = RecordingContext()
    asked = request(tmp_path, objective=Objective.LANGUAGE_MODEL, tokens=60 * BATCH_TOKENS, learning_rate=1e-2)
    align.run(asked, inputs, tmp_path / "out", context)
    report = json.loads((tmp_path / "out" / "alignment.json").read_text())
    told = [message for message in context.messages if "is skipped: loss nan" in message]
    assert 2 <= report["skipped_steps"] == len(told) < 60
    assert report["steps"] == 60
    assert len(report["loss"]) == 60 - len(told)
    assert report["loss"][-1] < report["loss"][0]
    after = load_file(tmp_path / "out" / "model" / "model.safetensors")
    broken = {name for name, weight in after.items() if not weight.isfinite().all()}
    assert broken == {"model.embed_tokens.weight"}
    assert int((~after["model.embed_tokens.weight"].isfinite()).any(1).sum()) == 1


def test_a_training_that_really_diverges_ends_with_a_clear_failure(tmp_path: Path) -> None:
    model = load_causal(tiny_llama(tmp_path), "cpu", torch.float32)
    model.get_output_embeddings().requires_grad_(False)
    sequences = torch.randint(0, 40, (200, LENGTH), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    training = Training(
        model,
        torch.optim.AdamW(trained),
        NextToken(head_of(model)),
        sequences,
        schedule=TooFastAfter(steps=100, batch_sequences=2, peak=1e-3, warmup_fraction=0, sane=30),
        context=RecordingContext(),
        state_file=tmp_path / "state.safetensors",
    )
    with pytest.raises(RequestFault, match=r"diverged at step \d\d:.*Lower alignment.learning_rate"):
        training.run()
    assert 40 <= training.progress.steps < 60

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from publisher.errors import JobCancelled, RequestFault
from publisher.recipe.stages import Stage
from tests.models import byte_tokenizer
from tests.worker.alignment.builds import AS_SEVERAL_DEVICES, BATCH_TOKENS, STEPS, CancellingContext, prepare, request
from worker.context import RecordingContext
from worker.stages.align import stage as align
from worker.text.packing import WeightedSource, training_sequences

BEFORE = {Stage.FETCH: "fetched", Stage.PRUNE: "pruned"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums depend on the number of threads in their last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _aligned(folder: Path, output: Path, context: RecordingContext | None = None, **alignment: object) -> Path:
    align.run(request(folder, **alignment), prepare(folder), output, context or RecordingContext())
    return output


def _weights(output: Path) -> dict[str, Tensor]:
    return load_file(output / "model" / "model.safetensors")


def _assert_same_weights(left: Path, right: Path) -> None:
    first, second = _weights(left), _weights(right)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def _run_until_killed(folder: Path, output: Path, signal_name: str, lines: int) -> int:
    """Run the alignment as a program and send it the signal after `lines` steps; returns its exit status."""
    command = [sys.executable, "-m", "tests.worker.alignment.builds", str(folder), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline().endswith("tokens\n")
        getattr(process, signal_name)()
        process.stdout.read()
        return process.wait()


@pytest.mark.parametrize("objective", ["distillation", "language_model"])
def test_alignment_lowers_the_loss(tmp_path: Path, objective: str) -> None:
    context = RecordingContext()
    _aligned(tmp_path, tmp_path / "out", context, objective=objective, tokens=100 * BATCH_TOKENS, learning_rate=1e-2)
    losses = [value for name, _, value in context.metrics if name == "loss"]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_output_is_a_bf16_model_of_the_same_shapes_and_a_report(tmp_path: Path) -> None:
    context = RecordingContext()
    out = _aligned(tmp_path, tmp_path / "out", context)
    before = load_file(tmp_path / "pruned" / "model.safetensors")
    assert {name: weight.shape for name, weight in _weights(out).items()} == {
        name: weight.shape for name, weight in before.items()
    }
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    assert model.dtype == torch.bfloat16
    report = json.loads((out / "alignment.json").read_text())
    assert (report["steps"], report["tokens"], len(report["loss"])) == (STEPS, STEPS * BATCH_TOKENS, STEPS)
    assert report["peak_memory_bytes"] > 0
    trained = sum(weight.numel() for name, weight in before.items() if name != "lm_head.weight")
    # two fp32 moments, and one fp32 counter per tensor
    assert report["optimizer_state_bytes"] == 8 * trained + 4 * (len(before) - 1)
    assert (report["optimizer"], report["skipped_steps"], report["checks"]) == ("adamw", 0, [])
    assert report["step"] == STEPS
    assert 0 < report["data_wait_share"] < 0.5
    assert context.fraction == 1.0
    assert len(report["gradient_cosine"]) == STEPS
    assert {name for name, _, _ in context.metrics} == {
        "loss",
        "gradient_cosine",
        "learning_rate",
        "tokens_per_second",
    }


def test_all_weights_but_the_head_train(tmp_path: Path) -> None:
    out = _aligned(tmp_path, tmp_path / "out", learning_rate=1e-2)
    before = load_file(tmp_path / "pruned" / "model.safetensors")
    after = _weights(out)
    unchanged = {name for name in before if torch.equal(before[name].bfloat16(), after[name])}
    assert unchanged == {"lm_head.weight"}


def test_tied_embeddings_are_the_head_and_stay(tmp_path: Path) -> None:
    inputs = prepare(tmp_path, tied=True)
    align.run(request(tmp_path, learning_rate=1e-2), inputs, tmp_path / "out", RecordingContext())
    before, after = load_file(inputs.pruned / "model.safetensors"), _weights(tmp_path / "out")
    unchanged = {name for name in before if torch.equal(before[name].bfloat16(), after[name])}
    assert unchanged == {"model.embed_tokens.weight"}


@pytest.mark.parametrize("steps_before", [2, pytest.param(5, marks=pytest.mark.long)])
def test_killed_and_resumed_gives_the_same_bits(tmp_path: Path, steps_before: int) -> None:
    whole = _aligned(tmp_path, tmp_path / "whole")
    assert _run_until_killed(tmp_path, tmp_path / "killed", "kill", steps_before) == -9
    context = RecordingContext()
    resumed = _aligned(tmp_path, tmp_path / "killed", context)
    assert any("goes on after step" in message for message in context.messages)
    _assert_same_weights(whole, resumed)


def test_sigterm_saves_and_then_ends_the_process(tmp_path: Path) -> None:
    whole = _aligned(tmp_path, tmp_path / "whole")
    assert _run_until_killed(tmp_path, tmp_path / "ended", "terminate", 3) == -15
    _assert_same_weights(whole, _aligned(tmp_path, tmp_path / "ended"))


@pytest.mark.parametrize("checks", [0, 2], ids=["between steps", "between micro-batches"])
def test_cancelled_and_resumed_gives_the_same_bits(tmp_path: Path, checks: int) -> None:
    two_micro_batches_a_step = {"batch_tokens": 2048, "tokens": 4 * 2048}
    whole = _aligned(tmp_path, tmp_path / "whole", **two_micro_batches_a_step)
    cancelling = CancellingContext(steps=2, checks=checks)
    with pytest.raises(JobCancelled):
        _aligned(tmp_path, tmp_path / "cancelled", cancelling, **two_micro_batches_a_step)
    context = RecordingContext()
    _assert_same_weights(whole, _aligned(tmp_path, tmp_path / "cancelled", context, **two_micro_batches_a_step))
    assert "Alignment goes on after step 2 of 4." in context.messages


def test_a_damaged_state_starts_over(tmp_path: Path) -> None:
    whole = _aligned(tmp_path, tmp_path / "whole")
    state = tmp_path / "again" / "state" / "training.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"\x08" + bytes(99))
    _assert_same_weights(whole, _aligned(tmp_path, tmp_path / "again"))


def test_a_loss_that_is_no_number_is_the_request_s_fault_and_names_the_learning_rate(tmp_path: Path) -> None:
    inputs = prepare(tmp_path)
    weights = load_file(inputs.pruned / "model.safetensors")
    weights["model.layers.3.mlp.up_proj.weight"].fill_(1e38)
    save_file(weights, inputs.pruned / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestFault, match=r"diverged at step 1: loss nan.*Lower alignment.learning_rate") as caught:
        align.run(request(tmp_path), inputs, tmp_path / "out", RecordingContext())
    assert caught.value.field == "recipe.alignment.learning_rate"


def test_digest_depends_on_text_and_seed_and_recipe(tmp_path: Path) -> None:
    prepare(tmp_path)
    digests = [
        align.digest(request(tmp_path), BEFORE),
        align.digest(request(tmp_path), {Stage.FETCH: "fetched", Stage.PRUNE: "otherwise"}),
        align.digest(request(tmp_path, tokens=2 * STEPS * BATCH_TOKENS), BEFORE),
    ]
    (tmp_path / "sea.jsonl").write_text(json.dumps({"text": "other"}))
    digests.append(align.digest(request(tmp_path), BEFORE))
    assert len(set(digests)) == len(digests)


def test_learning_rate_warms_up_and_falls(tmp_path: Path) -> None:
    context = RecordingContext()
    _aligned(tmp_path, tmp_path / "out", context, warmup_fraction=0.25)
    rates = [value for name, _, value in context.metrics if name == "learning_rate"]
    assert max(rates) == rates[2] == rates[3] == pytest.approx(1e-3)
    assert all(left > right for left, right in pairwise(rates[3:]))


def test_the_loss_of_a_step_is_the_mean_over_all_micro_batches(tmp_path: Path) -> None:
    inputs, length = prepare(tmp_path, dropout=0), 64
    settings = {"tokens": 2048, "batch_tokens": 2048, "sequence_length": length, **AS_SEVERAL_DEVICES}
    context, build = RecordingContext(), request(tmp_path, **settings)
    align.run(build, inputs, tmp_path / "out", context)
    corpora = [WeightedSource(build.corpora["sea"], 1.0)]
    batch = training_sequences(corpora, byte_tokenizer(), length, 2048 // length, seed=0).long()
    base, pruned = (AutoModelForCausalLM.from_pretrained(path) for path in (inputs.base, inputs.pruned))
    with torch.no_grad():
        wanted, found = (model(batch).logits.log_softmax(-1) for model in (base, pruned))
    naive = functional.kl_div(found, wanted, log_target=True, reduction="sum") / 2048
    assert context.metrics[0][2] == pytest.approx(float(naive), rel=1e-5)

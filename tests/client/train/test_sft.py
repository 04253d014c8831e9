"""Training with TRL, on tiny checkpoints of every kind: the loss falls, what was trained comes back verified, and a
training that was stopped goes on as if it had not been."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from publisher.checkpoint.framing import Framing
from publisher.checkpoint.provenance import Provenance
from publisher.checkpoint.recovery import recover_adapter
from publisher.checkpoint.tying import MARK_FILE
from publisher.client.progress import Lines
from publisher.client.train import sft
from publisher.client.train.examples import read_examples
from publisher.client.train.settings import Settings
from publisher.client.train.sft import Trained
from publisher.errors import RequestFault
from tests.client.train import tiny
from tests.client.train.tiny import CHATS, PAIRS, TEXTS, jsonl
from tests.devices import each_device
from tests.servers import wait_until

SETTINGS = Settings(rank=4, alpha=8, steps=4, batch=2, accumulate=2, length=64, learning_rate=2e-2)

ONE_STEP = replace(SETTINGS, steps=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    return tiny.structured(tmp_path_factory.mktemp("checkpoint"), base)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jsonl(tmp_path_factory.mktemp("data") / "texts.jsonl", TEXTS)


def train(checkpoint: Path, data: Path, output: Path, settings: Settings = SETTINGS, **options: Any) -> Trained:
    return sft.train(
        str(checkpoint), read_examples(data), output, settings, options.pop("shown", Lines(Console(quiet=True))),
        save_every=2, device=options.pop("device", "cpu"), **options,
    )  # fmt: skip


def bfloat16(folder: Path, checkpoint: Path, base: Path) -> Path:
    return tiny.structured(folder, base, dtype=torch.bfloat16)


def nf4(folder: Path, checkpoint: Path, base: Path) -> Path:
    return tiny.four_bit(folder, checkpoint, base=base)


def nf4_everywhere(folder: Path, checkpoint: Path, base: Path) -> Path:
    return tiny.four_bit(folder, checkpoint, include_embeddings=True, base=base)


@each_device
@pytest.mark.parametrize(
    "kind", [pytest.param(bfloat16, marks=pytest.mark.long), pytest.param(nf4, marks=pytest.mark.long), nf4_everywhere]
)
def test_loss_falls_and_the_adapter_comes_back_verified(
    kind: Callable[[Path, Path, Path], Path], checkpoint: Path, base: Path, texts: Path, tmp_path: Path, device: str
) -> None:
    trained_on = kind(tmp_path / "checkpoint", checkpoint, base)
    trained = train(trained_on, texts, tmp_path / "out", device=device)
    falls(trained)
    report = recover_adapter(trained.adapter, trained_on, tmp_path / "recovered", base_model=str(base))
    assert (report.provenance, report.merged, report.notes) == (Provenance.VERIFIED, False, ())
    model = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.tensor([AutoTokenizer.from_pretrained(trained_on)("Call me Ishmael. ").input_ids])
    alone = model(ids, labels=ids).loss
    assert PeftModel.from_pretrained(model, report.output)(ids, labels=ids).loss < alone - 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "adapter", "checkpoints", "log.jsonl", "loss.png", "run.json",
    }  # fmt: skip


def falls(trained: Trained) -> None:
    assert trained.eval_loss_before is not None
    assert trained.eval_loss_after is not None
    assert trained.eval_loss_after < trained.eval_loss_before - 1


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """A checkpoint that lost single weights, whose masks are no part of what Trainer saves."""
    return tiny.of_single_weights(tmp_path_factory.mktemp("sparse"), base)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, sparse: Path, texts: Path) -> Trained:
    """Trained on `sparse` without a stop."""
    return train(sparse, texts, tmp_path_factory.mktemp("whole") / "out")


def test_an_update_of_single_weights_is_masked_and_merged(
    whole: Trained, sparse: Path, base: Path, tmp_path: Path
) -> None:
    falls(whole)
    assert (whole.adapter / MARK_FILE).is_file()
    report = recover_adapter(whole.adapter, sparse, tmp_path / "merged", base_model=str(base))
    assert (report.provenance, report.merged, whole.merges, report.notes) == (Provenance.VERIFIED, True, True, ())


@pytest.mark.parametrize(
    ("rows", "packing"), [(TEXTS, False), (PAIRS, True), (CHATS, False)], ids=["texts", "packed pairs", "chats"]
)
def test_the_loss_is_that_of_each_example_by_itself(
    rows: list[dict[str, Any]], packing: bool, checkpoint: Path, tmp_path: Path
) -> None:
    """Before any step: nothing is learned of prompts, packed examples see nothing of each other, texts are cut."""
    settings = replace(SETTINGS, steps=1, length=32, packing=packing, batch=1, accumulate=1, eval_split=0.25)
    data = jsonl(tmp_path / "data.jsonl", rows)
    trained = train(checkpoint, data, tmp_path / "out", settings)
    _, held_out = sft._split(rows, settings)
    assert len(held_out) in {3, 4}
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    found = [nll(model, ids, start) for row in held_out for ids, start in sequences(tokenizer, row, 32)]
    # Trainer's mean is over batches; all pairs have as many tokens, so that two in a sequence count as much
    assert trained.eval_loss_before == pytest.approx(sum(found) / len(found), rel=1e-5)


def sequences(tokenizer: Any, row: dict[str, Any], length: int) -> list[tuple[list[int], int]]:
    """Tokens, and how many of them are a prompt."""
    if "messages" in row:
        return [(tokenizer(tokenizer.apply_chat_template(row["messages"], tokenize=False)).input_ids[:length], 0)]
    if "prompt" in row:
        prompt, completion = (tokenizer(row[name]).input_ids for name in ("prompt", "completion"))
        return [([*prompt, *completion, tokenizer.eos_token_id][:length], len(prompt))]
    ids = [*tokenizer(row["text"]).input_ids, *Framing.of(tokenizer).close]
    return [(ids[start : start + length], 0) for start in range(0, len(ids), length)]


def nll(model: Any, ids: list[int], prompt: int) -> float:
    """Mean over the tokens behind the prompt."""
    tokens = torch.tensor([ids])
    labels = tokens.clone()
    labels[:, :prompt] = -100
    return float(model(tokens, labels=labels).loss.detach())


class Dies(Lines):
    """At step 3, after the state of step 2 was saved."""

    def progress(self, name: str, done: float, total: float | None, unit: str, at: float) -> None:
        if done == 3:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def stopped_at_3(tmp_path_factory: pytest.TempPathFactory, sparse: Path, texts: Path) -> Path:
    output = tmp_path_factory.mktemp("stopped") / "out"
    with pytest.raises(KeyboardInterrupt):
        train(sparse, texts, output, shown=Dies(Console(quiet=True)))
    return output


@pytest.fixture
def stopped(stopped_at_3: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped_at_3, tmp_path / "stopped")
    return tmp_path / "stopped"


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(
    stopped: Path, whole: Trained, sparse: Path, texts: Path
) -> None:
    # killed while it saved the next state, and while it wrote of the step
    (stopped / "checkpoints" / "checkpoint-4").mkdir()
    (stopped / "checkpoints" / "checkpoint-4" / "trainer_state.json").write_text('{"epoch": 0.')
    with (stopped / "log.jsonl").open("a") as log:
        log.write('{"step": 3, "loss": 9.0}\n{"step": 4, "lo')
    resumed = train(sparse, texts, stopped, resume=True)
    same(whole.adapter, resumed.adapter)
    assert replace(resumed, adapter=whole.adapter) == whole  # all losses, too
    logged = [json.loads(line) for line in (stopped / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "loss" in line] == [1, 2, 3, 4]


def same(one: Path, other: Path) -> None:
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_adapter_beside_4_bits_goes_on_to_the_same_bits(
    checkpoint: Path, base: Path, texts: Path, tmp_path: Path
) -> None:
    packed = nf4(tmp_path / "nf4", checkpoint, base)
    whole = train(packed, texts, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(packed, texts, tmp_path / "stopped", shown=Dies(Console(quiet=True)))
    with pytest.raises(RequestFault, match="holds a training already"):
        train(packed, texts, tmp_path / "stopped")
    same(whole.adapter, train(packed, texts, tmp_path / "stopped", resume=True).adapter)


def test_one_that_was_stopped_before_it_saved_anything_starts_anew(
    stopped: Path, whole: Trained, sparse: Path, texts: Path
) -> None:
    shutil.rmtree(stopped / "checkpoints")
    (stopped / "log.jsonl").write_text('{"step": 0, "eval_loss": 9.0}\n')
    resumed = train(sparse, texts, stopped, resume=True)
    same(whole.adapter, resumed.adapter)
    assert resumed.eval_loss_before == whole.eval_loss_before


def test_what_would_not_go_on_as_it_began_is_refused(
    stopped: Path, whole: Trained, sparse: Path, checkpoint: Path, texts: Path, tmp_path: Path
) -> None:
    other = jsonl(tmp_path / "other.jsonl", TEXTS[1:])
    for trained_on, data, settings, said in (
        (sparse, texts, replace(SETTINGS, rank=8), "is of another rank: 4, not 8"),
        (sparse, other, SETTINGS, "is of another data"),
        (checkpoint, texts, SETTINGS, "is of another checkpoint"),
    ):
        with pytest.raises(RequestFault, match=said):
            train(trained_on, data, stopped, settings, resume=True)
    for output, resume, said in (
        (tmp_path / "never", True, "holds no training to resume"),
        (stopped, False, "holds a training already"),
        (whole.adapter.parent, True, "this training has ended"),
    ):
        with pytest.raises(RequestFault, match=said):
            train(sparse, texts, output, resume=resume)


@pytest.mark.parametrize(
    ("rows", "changed", "said"),
    [
        (CHATS, {}, "data.jsonl, line 1 has messages, and the checkpoint's tokenizer has no chat template"),
        (TEXTS, {"length": 129}, "Sequences of 129 tokens are longer than the model's 128 positions"),
        (TEXTS[:1], {}, "One example cannot be split"),
        (TEXTS, {"targets": ("q_proj", "w1")}, "has no linear layer w1"),
        ([{"prompt": "a" * 70, "completion": "b"}] * 3, {}, "All prompts have 70 tokens and more"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    rows: list[dict[str, Any]], changed: dict[str, Any], said: str, base: Path, tmp_path: Path
) -> None:
    checkpoint = tiny.structured(tmp_path / "checkpoint", base, chat=False)
    with pytest.raises(RequestFault) as refused:
        train(checkpoint, jsonl(tmp_path / "data.jsonl", rows), tmp_path / "out", replace(SETTINGS, **changed))
    assert said in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "option"),
    [
        ({"alpha": 0.0}, "--alpha"),
        ({"alpha": float("nan")}, "--alpha"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
        ({"epochs": float("inf")}, "--epochs"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**32}, "--seed"),
    ],
    ids=str,
)
def test_numbers_that_are_none_are_refused_before_anything_is_written(
    checkpoint: Path, texts: Path, tmp_path: Path, values: dict[str, Any], option: str
) -> None:
    with pytest.raises(RequestFault, match=option):
        train(checkpoint, texts, tmp_path / "out", replace(ONE_STEP, **values))
    assert not (tmp_path / "out").exists()


def test_a_chat_template_that_refuses_names_the_line(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "strict")
    (tmp_path / "strict" / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
    )
    rows = [CHATS[0], {"messages": [{"role": "system", "content": "?"}]}]
    with pytest.raises(RequestFault, match=r"data.jsonl, line 2: .* refuses the messages: no system"):
        train(tmp_path / "strict", jsonl(tmp_path / "data.jsonl", rows), tmp_path / "out")


def test_a_loss_that_is_no_number_ends_the_training(checkpoint: Path, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestFault, match=r"The loss is no number since step \d") as refused:
        train(checkpoint, texts, tmp_path / "out", replace(SETTINGS, learning_rate=1e30, steps=20))
    assert "--learning-rate" in str(refused.value)
    assert not (tmp_path / "out" / "adapter").exists()
    losses = [line["loss"] for line in map(json.loads, (tmp_path / "out" / "log.jsonl").open()) if "loss" in line]
    assert [loss is None for loss in losses] == [*[False] * (len(losses) - 1), True]
    assert len(losses) < 20


def test_examples_whose_prompts_fill_a_sequence_are_left_out(checkpoint: Path, tmp_path: Path) -> None:
    console = Console(file=(said := io.StringIO()))
    rows = [{"prompt": "a" * 70, "completion": "b", "id": 1}, *PAIRS[:3]]
    train(
        checkpoint,
        jsonl(tmp_path / "d.jsonl", rows),
        tmp_path / "out",
        replace(SETTINGS, steps=1),
        shown=Lines(console),
    )
    assert "Not used of the examples: id.\n1 examples are left out" in said.getvalue()


@pytest.mark.long  # three processes that import TRL
def test_kill_9_in_the_middle(checkpoint: Path, texts: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "publisher.client.main", "train", str(checkpoint), "--data", str(texts),
        "--rank", "4", "--steps", "120", "--batch", "2", "--accumulate", "1", "--length", "64", "--save-every", "2",
    ]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, "--output", str(whole)], check=True, capture_output=True)
    with subprocess.Popen([*command, "--output", str(killed)], stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: any(killed.glob("checkpoints/checkpoint-*[24680]/trainer_state.json")), "a saved state", 120)
        os.kill(process.pid, signal.SIGKILL)
    assert not (killed / "adapter").exists()
    saved = max(int(path.parent.name[11:]) for path in killed.glob("checkpoints/checkpoint-*/trainer_state.json"))
    assert saved < 120
    subprocess.run([*command, "--output", str(killed), "--resume"], check=True, capture_output=True)
    same(whole / "adapter", killed / "adapter")

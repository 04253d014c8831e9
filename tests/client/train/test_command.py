from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from publisher.client.progress import Lines
from tests.client.conftest import Shell
from tests.client.train import tiny
from tests.client.train.tiny import TEXTS, jsonl

OPTIONS = "--rank 4 --steps 3 --batch 1 --accumulate 1 --length 32 --learning-rate 0.01 --save-every 1 --device cpu"


def words(checkpoint: Path, data: Path, output: Path, *more: str) -> list[str]:
    return ["train", str(checkpoint), "--data", str(data), "--output", str(output), *OPTIONS.split(), *more]


def test_ctrl_c_then_resume_then_the_command_that_is_printed(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tiny.structured(tmp_path / "checkpoint")
    command = words(checkpoint, jsonl(tmp_path / "data.jsonl", TEXTS), tmp_path / "out dir", "--target", "q_proj")

    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as at_once:
        at_once.setattr(Lines, "progress", interrupted)
        stopped = shell(*command)
    assert stopped.status == 130
    assert "The same command with --resume goes on from what was saved.\nStopped." in stopped.err
    done = shell(*command, "--resume")
    assert done.status == 0, done.err
    assert done.out.startswith("Trained 3 steps, mean loss ")
    assert "\nLoss on what was held out: " in done.out
    recovered = shell(*shlex.split(done.out.splitlines()[-1])[1:])
    assert recovered.status == 0, recovered.err
    assert "(verified: the adapter was trained on this checkpoint)" in recovered.out
    assert "Recovered 8 tensors" in recovered.out  # A and B of four layers' q_proj


def test_what_was_typed_wrongly_and_what_is_refused_end_differently(shell: Shell, tmp_path: Path) -> None:
    checkpoint = tiny.structured(tmp_path / "checkpoint")
    data = jsonl(tmp_path / "data.jsonl", [{"question": "?"}])
    both = shell(*words(checkpoint, data, tmp_path / "out", "--epochs", "2"))
    assert (both.status, "choose one" in both.err) == (2, True)
    refused = shell(*words(checkpoint, data, tmp_path / "out"))
    assert refused.status == 4
    assert refused.err.startswith("Error: data.jsonl, line 1 has nothing to train on: its fields are question.")
    nowhere = shell(*words(tmp_path / "nowhere" / "at" / "all", jsonl(data, TEXTS), tmp_path / "out"))
    assert nowhere.status == 5
    assert not (tmp_path / "out").exists()


def test_asking_for_help_loads_neither_torch_nor_trl() -> None:
    code = "import sys, publisher.client.train.command; print({'torch', 'trl', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

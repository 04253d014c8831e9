"""The benchmark itself works: nobody runs it for months, and what it calls moves on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import optimizers
from tests.models import tiny_llama
from tests.worker.alignment.test_reconstruction import cut


@pytest.mark.long
def test_optimizers_are_compared_at_every_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = cut(tiny_llama(tmp_path / "base"))
    lines = (json.dumps({"text": f"chapter {number}: " + "the whale swims " * 40}) for number in range(60))
    (tmp_path / "sea.jsonl").write_text("\n".join(lines))
    named = {"--base": inputs.base, "--pruned": inputs.pruned, "--corpora": tmp_path / "sea.jsonl"}
    sizes = {"--tokens": 512, "--batch-tokens": 128, "--length": 32, "--rank": 8, "--work": tmp_path / "work"}
    arguments = [str(part) for pair in (named | sizes).items() for part in pair]
    asked = ["--optimizers", "adamw", "gradnormlorp", "--rates", "1e-4", "1e-3", "--objective", "distillation"]
    optimizers.main([*arguments, *asked])
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said if "tokens/s" in line] == [
        *["adamw"] * 2,
        *["gradnormlorp"] * 2,
        "adamw",
        "gradnormlorp",
    ]

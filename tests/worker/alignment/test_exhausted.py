"""What alignment makes of a corpus that is too short, by the recipe's word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from publisher.errors import RequestFault
from tests.worker.alignment.builds import BATCH_TOKENS, prepare, request
from worker.context import RecordingContext
from worker.stages.align import stage as align
from worker.stages.inputs import AlignInputs

WANTED = 100


@pytest.fixture
def short(tmp_path: Path) -> AlignInputs:
    """Text for some batches, but not for `WANTED`."""
    inputs = prepare(tmp_path)
    lines = (json.dumps({"text": f"{number} the whale swims " * 4}) for number in range(20))
    (tmp_path / "sea.jsonl").write_text("\n".join(lines))
    return inputs


def aligned(
    inputs: AlignInputs, folder: Path, name: str, **alignment: object
) -> tuple[dict[str, object], RecordingContext]:
    context = RecordingContext()
    output = folder / name
    output.mkdir()
    align.run(request(folder, tokens=WANTED * BATCH_TOKENS, **alignment), inputs, output, context)
    return json.loads((output / "alignment.json").read_text()), context


def test_alignment_ends_with_its_text_on_a_schedule_of_that_length(short: AlignInputs, tmp_path: Path) -> None:
    report, context = aligned(short, tmp_path, "out", exhausted="stop")
    steps = report["steps"]
    assert isinstance(steps, int)
    assert 4 < steps < WANTED
    assert context.fraction == 1.0
    rates = [value for name, _, value in context.metrics if name == "learning_rate"]
    assert len(rates) == steps
    assert rates[-1] < 0.1 * max(rates)
    assert any("Corpus sea fills" in message and "alignment stops there" in message for message in context.messages)


def test_repeating_takes_all_steps(short: AlignInputs, tmp_path: Path) -> None:
    report, context = aligned(short, tmp_path, "out", exhausted="repeat")
    assert report["steps"] == WANTED
    assert any("it is gone through again" in message for message in context.messages)


def test_refusing_is_the_default(short: AlignInputs, tmp_path: Path) -> None:
    with pytest.raises(RequestFault, match=r'set alignment\.exhausted to "repeat" or "stop"'):
        aligned(short, tmp_path, "out")


def test_a_sweep_tokenizes_once(short: AlignInputs, tmp_path: Path) -> None:
    keeping = replace(short, kept=tmp_path / "kept")
    first, _ = aligned(keeping, tmp_path, "first", exhausted="stop")
    (file,) = (tmp_path / "kept" / "tokens").iterdir()
    made = file.stat().st_ino
    again, _ = aligned(keeping, tmp_path, "again", exhausted="stop")
    assert file.stat().st_ino == made, "it was written again"
    assert again["loss"] == first["loss"]

"""A build whose standard error is a file says in lines how far it is."""

from __future__ import annotations

import pytest

from publisher.client import progress
from publisher.recipe.stages import Stage
from worker.build.terminal import shown_progress
from worker.stages.pipeline import StageState


def test_aligning_is_told_with_step_and_loss(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with shown_progress() as shown:
        context = shown.context(Stage.ALIGN)
        shown.on_stage(Stage.ALIGN, StageState.STARTED, None)
        context.metric("learning_rate", 8, 0.1)
        context.metric("loss", 8, 2.5)
        context.log("a word about it")
        context.progress(4096, 16384, "tokens")
        shown.on_stage(Stage.ALIGN, StageState.FINISHED, 12.34)
        shown.context(Stage.EVALUATE)
        shown.on_stage(Stage.EVALUATE, StageState.REUSED, 5.0)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "  a word about it",
        "align      4,096/16,384 tokens, step 8, loss 2.500",
        "align      done in 12.3 s",
        "evaluate   there already (took 5.0 s)",
    ]

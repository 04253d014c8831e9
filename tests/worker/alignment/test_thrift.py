from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from publisher.errors import RequestFault
from tests.worker.alignment.builds import prepare, request
from worker.context import RecordingContext
from worker.stages.align import stage as align


def aligned(folder: Path, name: str, **settings: object) -> tuple[list[float], dict[str, torch.Tensor]]:
    output = folder / name
    output.mkdir()
    align.run(request(folder, **settings), prepare(folder), output, RecordingContext())
    return json.loads((output / "alignment.json").read_bytes())["loss"], load_file(output / "model/model.safetensors")


@pytest.mark.parametrize(
    "settings",
    [{"objective": "language_model"}, {"hidden_states_weight": 0.5}, {"trainable": "low_rank", "rank": 4}],
    ids=["all weights", "hidden states", "LoRA"],
)
def test_computing_layers_again_changes_nothing(tmp_path: Path, settings: dict[str, object]) -> None:
    """Dropout draws the same numbers again."""
    losses, weights = aligned(tmp_path, "kept", **settings)
    again, weights_again = aligned(tmp_path, "computed", activation_checkpointing=True, **settings)
    assert losses == again
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"gradient_matching": 0}, 1e-4), ({"gradient_matching": 0, "hidden_states_weight": 0.5}, 1e-4), ({}, 0.05)],
    ids=["logits", "hidden states", "gradients"],
)
def test_compiled_layers_learn_the_same(tmp_path: Path, settings: dict[str, object], error: float) -> None:
    """Sums are made in another order, which a quotient of small differences shows more; and dropout draws other
    numbers: without it, nearly the same."""
    inputs = prepare(tmp_path, dropout=0.0)
    losses = []
    for setting in (False, True):
        output = tmp_path / str(setting)
        output.mkdir()
        align.run(request(tmp_path, compile=setting, **settings), inputs, output, RecordingContext())
        losses.append(json.loads((output / "alignment.json").read_bytes())["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=error)
    assert losses[1] != losses[0]


def test_compiling_without_a_compiler_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    inputs = prepare(tmp_path)
    with pytest.raises(RequestFault, match="needs a C\\+\\+ compiler"):
        align.run(request(tmp_path, compile=True), inputs, tmp_path, RecordingContext())

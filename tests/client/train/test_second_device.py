"""`sft` on a device whose tensors refuse to meet the CPU's (tests/second_device)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from rich.console import Console

from publisher.client.progress import Lines
from publisher.client.train import sft
from publisher.client.train.examples import read_examples
from publisher.client.train.settings import Settings
from tests.client.train import tiny
from tests.second_device import second_device


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Which accelerate, that knows devices by a list of its own, takes as well; it asks once in a process."""
    with second_device() as device:
        monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", str(device))
        AcceleratorState._reset_state(reset_partial_state=True)
        yield device
    PartialState._reset_state()
    AcceleratorState._reset_state(reset_partial_state=True)


def test_an_adapter_is_trained_beside_4_bits(tmp_path: Path, device: torch.device) -> None:
    dense = tiny.structured(tmp_path / "dense", tmp_path / "base")
    packed = tiny.four_bit(tmp_path / "packed", dense)
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in tiny.TEXTS))
    settings = Settings(steps=2, batch=2, rank=4, length=32)
    shown = Lines(Console(quiet=True))
    trained = sft.train(
        str(packed), read_examples(data), tmp_path / "out", settings, shown, save_every=1, device=str(device)
    )
    assert trained.steps == 2
    assert (trained.adapter / "adapter_model.safetensors").exists()

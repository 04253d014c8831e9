from __future__ import annotations

from pathlib import Path

import torch

from tests.devices import each_device
from tests.worker.streaming.families import save_tiny
from worker.streaming.capture import call_layer
from worker.streaming.hidden import CalibrationStates
from worker.streaming.model import LayerStream


@each_device
@torch.no_grad()
def test_states_in_a_file_are_those_in_memory(tmp_path: Path, device: str) -> None:
    stream = LayerStream(save_tiny("gemma3", tmp_path / "base"), device)
    sequences = torch.randint(1, 320, (7, 700), generator=torch.Generator().manual_seed(0))
    in_memory = CalibrationStates(stream, sequences, tmp_path)
    in_file = CalibrationStates(stream, sequences, tmp_path, most_in_memory=0)
    assert (tmp_path / "hidden_states.bin").stat().st_size == 7 * 700 * 32 * 4
    for index in range(2):
        with stream.layer(index) as layer:
            for states in (in_memory, in_file):
                for batch, hidden, arguments in states.entering(index):
                    states.put(batch, call_layer(layer, hidden, arguments))
    for (_, first, _), (_, second, _) in zip(in_memory.entering(2), in_file.entering(2), strict=True):
        assert torch.equal(first, second)


def test_samples_that_are_longer_than_a_batch_go_one_by_one(tmp_path: Path) -> None:
    stream = LayerStream(save_tiny("llama", tmp_path / "base"), "cpu")
    states = CalibrationStates(stream, torch.ones(3, 2500, dtype=torch.int64), tmp_path)
    assert [tuple(hidden.shape) for _, hidden, _ in states.entering(0)] == [(1, 2500, 32)] * 3

from __future__ import annotations

import pytest
import torch

from tests.devices import each_device
from worker.models.measure import measure_flops, peak_memory

MIB = 2**20


@each_device
def test_peak_memory_sees_what_was_freed_again(device: str) -> None:
    with peak_memory(device) as before:
        pass
    with peak_memory(device) as during:
        torch.ones(64 * MIB, dtype=torch.uint8, device=device).sum()
    assert during.bytes - before.bytes > 48 * MIB


def test_peak_memory_starts_anew_each_time() -> None:
    with peak_memory("cpu") as large:
        torch.ones(256 * MIB, dtype=torch.uint8).sum()
    with peak_memory("cpu") as small:
        pass
    assert small.bytes < large.bytes - 128 * MIB


def test_peak_memory_is_known_after_a_failure() -> None:
    with pytest.raises(ValueError, match="stop"), peak_memory("cpu") as peak:
        raise ValueError("stop")
    assert peak.bytes > 0


@each_device
def test_flops_are_those_of_a_computer(device: str) -> None:
    assert 1e8 < measure_flops(device, seconds=0.05) < 1e16

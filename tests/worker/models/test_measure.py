from __future__ import annotations

import pytest
import torch

from worker.models.measure import measure_flops, peak_memory

MIB = 2**20


def test_peak_memory_sees_what_was_freed_again() -> None:
    with peak_memory("cpu") as before:
        pass
    with peak_memory("cpu") as during:
        torch.ones(64 * MIB, dtype=torch.uint8).sum()
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


def test_flops_are_those_of_a_computer() -> None:
    assert 1e8 < measure_flops("cpu", seconds=0.05) < 1e16


@pytest.mark.gpu
def test_peak_memory_on_the_gpu_counts_tensors() -> None:
    with peak_memory("cuda") as peak:
        torch.ones(64 * MIB, dtype=torch.uint8, device="cuda").sum()
    assert peak.bytes >= 64 * MIB

"""Hidden states come back as they were put away, from memory and from disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.devices import each_device
from worker.streaming.states import IN_MEMORY, StateStore


@each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("total", [IN_MEMORY, IN_MEMORY + 1], ids=["memory", "disk"])
def test_states_come_back(tmp_path: Path, total: int, dtype: torch.dtype, device: str) -> None:
    store = StateStore(tmp_path, total, torch.device(device))
    first, second = (torch.randn(rows, 3, 5).to(device, dtype) for rows in (2, 4))
    store.put("a", first)
    store.put("b", second.transpose(0, 1))
    assert torch.equal(store.get("a"), first)
    assert torch.equal(store.get("b"), second.transpose(0, 1))
    store.put("a", second)
    assert torch.equal(store.get("a"), second)


@pytest.mark.parametrize("total", [IN_MEMORY, IN_MEMORY + 1], ids=["memory", "disk"])
def test_what_is_kept_is_a_copy(tmp_path: Path, total: int) -> None:
    store, states = StateStore(tmp_path, total, torch.device("cpu")), torch.zeros(3)
    store.put("a", states)
    states.fill_(1)
    assert not store.get("a").any()


def test_many_states_are_on_disk_until_they_are_dropped(tmp_path: Path) -> None:
    store = StateStore(tmp_path, IN_MEMORY + 1, torch.device("cpu"))
    store.put("a", torch.zeros(8))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    store.drop("a")
    assert not any(tmp_path.iterdir())

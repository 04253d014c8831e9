"""A model's tensors, found by the headers and mapped from disk."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from publisher.errors import RequestFault
from tests.models import tiny_llama
from worker.streaming.files import TensorFiles, all_finite


def test_tensors_of_all_shards_are_read_by_name(tmp_path: Path) -> None:
    files = TensorFiles.open(tiny_llama(tmp_path, max_shard_size="20KB"))
    stored: dict[str, Tensor] = {}
    for path in tmp_path.glob("*.safetensors"):
        stored |= load_file(path)
    assert files.tensors.keys() == stored.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in files.read(stored).items())


def test_places_follow_the_disk_and_are_where_the_values_lie(tmp_path: Path) -> None:
    files = TensorFiles.open(tiny_llama(tmp_path, max_shard_size="20KB"))
    ordered = sorted(files.tensors, key=files.place)
    for name, tensor in files.read(ordered).items():
        stored, values = files.tensors[name], tensor.numpy().tobytes()
        assert stored.path.read_bytes()[stored.position :][: len(values)] == values
    for before, after in pairwise(ordered):
        one, other = files.tensors[before], files.tensors[after]
        if one.path == other.path:
            bytes_of = {"F32": 4}[one.dtype] * torch.Size(one.shape).numel()
            assert one.position + bytes_of == other.position
        else:
            assert one.path.name < other.path.name


def test_type_that_is_no_weight_s_is_named_with_its_file(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2), "steps": torch.ones(2, dtype=torch.int32)}, tmp_path / "model.safetensors")
    files = TensorFiles.open(tmp_path)
    assert files.dtype("w") is torch.float32
    with pytest.raises(RequestFault, match=r"tensor steps in model\.safetensors is stored as I32"):
        files.dtype("steps")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("position", [0, 2**19 - 1, 2**19, 2**19 + 4])
def test_one_value_that_is_not_finite_is_found_wherever_it_is(value: float, position: int) -> None:
    tensor = torch.zeros(5, (2**19 + 5) // 5 + 1, dtype=torch.bfloat16)
    assert all_finite(tensor)
    tensor.view(-1)[position] = value
    assert not all_finite(tensor)


def test_values_whose_sum_is_too_large_are_finite_all_the_same() -> None:
    assert all_finite(torch.full((10,), 3e38))
    assert not all_finite(torch.tensor([3e38, 3e38, float("nan")]))
    assert not all_finite(torch.tensor([float("inf"), -float("inf")]))

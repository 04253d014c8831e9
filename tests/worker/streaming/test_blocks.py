from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from publisher.errors import RequestFault
from worker.streaming.blocks import BlockReader
from worker.streaming.files import TensorFiles, all_finite

TENSORS = {
    "matrix": torch.arange(7 * 5, dtype=torch.float32).reshape(7, 5),
    "vector": torch.arange(11, dtype=torch.bfloat16),
    "experts": torch.arange(3 * 2 * 4, dtype=torch.float16).reshape(3, 2, 4),
    "number": torch.tensor(3.0, dtype=torch.float64),
}


def together(reader: BlockReader, name: str) -> Tensor:
    blocks = [(rows, block.clone()) for rows, block in reader.blocks(name)]
    assert [rows.start for rows, _ in blocks[1:]] == [rows.stop for rows, _ in blocks[:-1]]
    return torch.cat([block for _, block in blocks])


@pytest.mark.parametrize("at_once", [1, 40, 64, 2**20])
def test_blocks_make_the_tensor_however_much_is_read_at_once(tmp_path: Path, at_once: int) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    with BlockReader(TensorFiles.open(tmp_path), at_once) as reader:
        for name, tensor in TENSORS.items():
            assert torch.equal(together(reader, name), tensor.reshape(tensor.shape or (1,)))


def test_threads_do_not_share_memory(tmp_path: Path) -> None:
    tensors = {str(number): torch.full((64, 64), float(number)) for number in range(16)}
    save_file(tensors, tmp_path / "model.safetensors")
    with BlockReader(TensorFiles.open(tmp_path), 1024) as reader, ThreadPoolExecutor(4) as threads:
        read = list(threads.map(lambda name: together(reader, name), tensors))
    assert all(torch.equal(got, tensor) for got, tensor in zip(read, tensors.values(), strict=True))


def test_a_file_that_became_shorter_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    files = TensorFiles.open(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    last = max(TENSORS, key=lambda name: files.tensors[name].position)
    with BlockReader(files) as reader, pytest.raises(RequestFault, match=r"model\.safetensors .* ends early"):
        together(reader, last)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_one_number_that_is_not_finite_is_found(bad: float) -> None:
    values = torch.zeros(2**20 + 3, dtype=torch.bfloat16)
    assert all_finite(values)
    values[-1] = bad
    assert not all_finite(values)


def test_a_sum_that_overflows_is_no_reason_to_refuse() -> None:
    assert all_finite(torch.full((8,), 3e38))

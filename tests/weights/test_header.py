"""Headers of safetensors files: what the library wrote is read, and nothing else."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from publisher.errors import UnsupportedModel
from publisher.weights.header import read_file_header, read_header

TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.arange(5, dtype=torch.bfloat16),
    "none": torch.zeros(0, 4),
    "scalar": torch.tensor(1.5),
    "packed": torch.arange(3, dtype=torch.uint8),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def test_every_tensor_is_where_the_header_says(file: Path) -> None:
    header, content = read_file_header(file), file.read_bytes()
    with safe_open(file, framework="pt") as opened:
        assert header.tensors.keys() == set(opened.keys())
        for name, entry in header.tensors.items():
            assert (entry.dtype, list(entry.shape)) == (
                opened.get_slice(name).get_dtype(),
                opened.get_slice(name).get_shape(),
            )
            found = content[header.start + entry.begin : header.start + entry.end]
            assert found == TENSORS[name].contiguous().flatten().view(torch.uint8).numpy().tobytes()


def test_elements_are_counted_by_type(file: Path) -> None:
    assert read_file_header(file).elements() == {"F32": 7, "BF16": 5, "U8": 3}


def test_header_longer_than_the_first_read_is_read_to_its_end(tmp_path: Path) -> None:
    many = {f"layer.{number}.{'x' * 100}": torch.zeros(1, dtype=torch.uint8) for number in range(1500)}
    save_file(many, tmp_path / "many")
    asked: list[tuple[int, int]] = []
    content = (tmp_path / "many").read_bytes()

    def read(start: int, end: int) -> bytes:
        asked.append((start, end))
        return content[start:end]

    header = read_header("many", len(content), read)
    assert header.tensors.keys() == many.keys()
    assert [start for start, _ in asked] == [0, asked[0][1]]
    assert asked[-1][1] == header.start


def written(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is not a safetensors file"),
        (b"1234567", "it is not a safetensors file"),
        (struct.pack("<Q", 2**40), "it is not a safetensors file"),
        (struct.pack("<Q", 90) + b"{}", "truncated inside its header"),
        (written(b"{{{"), "not JSON"),
        (written(b"[" * 100_000), "not JSON"),
        (written([]), "not a JSON object"),
        (written({"__metadata__": {"a": 1}}), "__metadata__ is not names and texts"),
        (written({"a": {"dtype": "U8"}}), "without dtype, shape and data_offsets"),
        (written({"a": entry([-1], 0, 1)}, b"1"), "without dtype, shape and data_offsets"),
        (written({"a": entry([True], 0, 1)}, b"1"), "without dtype, shape and data_offsets"),
        (written({"a": entry([3], 0, 2)}, b"12"), r"gives tensor a 2 bytes, but U8 of shape \(3,\) takes 3"),
        (written({"a": entry([1], 0, 1), "b": entry([1], 2, 3)}, b"1?3"), "tensor b at byte 2 where byte 1 is next"),
        (written({"a": entry([2], 0, 2), "b": entry([2], 1, 3)}, b"123"), "tensor b at byte 1 where byte 2 is next"),
        (written({"a": entry([2], 0, 2)}, b"1"), "describes 2 bytes of weights and 1 follow"),
        (written({"a": entry([2], 0, 2)}, b"123"), "holds 1 bytes that its header does not describe"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "Git LFS"),
    ],
)
def test_anything_that_the_library_would_not_write_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(UnsupportedModel, match=says) as refused:
        read_file_header(tmp_path / "w.safetensors")
    assert "w.safetensors" in str(refused.value)


def test_type_that_is_newer_than_this_reader_is_taken_at_its_word(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(written({"a": entry([4], 0, 2, "F4")}, b"12"))
    assert read_file_header(tmp_path / "w").elements() == {"F4": 4}

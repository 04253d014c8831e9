from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.weights.writing import Entry, PlacedFile, write_tensors

TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.arange(5, dtype=torch.bfloat16),
    "c": torch.arange(3, dtype=torch.uint8),
    "d": torch.arange(4, dtype=torch.float64),
}
ENTRIES = [
    Entry("a", "BF16", (5,)),
    Entry("b", "F32", (2, 3)),
    Entry("c", "U8", (3,)),
    Entry("d", "F64", (4,)),
]


def test_file_is_the_one_that_safetensors_writes(tmp_path: Path) -> None:
    write_tensors(tmp_path / "ours", ENTRIES, lambda name: TENSORS[name])
    save_file(TENSORS, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("order", ["abcd", "dcba", "cadb"])
def test_tensors_may_come_in_any_order(tmp_path: Path, order: str) -> None:
    with PlacedFile(tmp_path / "file", ENTRIES, {"format": "loram", "more": "1"}) as file:
        for name in order:
            file.write(name, TENSORS[name])
    read = load_file(tmp_path / "file")
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())


def test_views_are_written_as_they_look(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", [Entry("t", "F32", (3, 2))], lambda _: TENSORS["b"].T)
    assert torch.equal(load_file(tmp_path / "file")["t"], TENSORS["b"].T)


def write_only(path: Path, names: str) -> None:
    with PlacedFile(path, ENTRIES) as file:
        for name in names:
            file.write(name, TENSORS[name])


def test_a_file_that_lacks_a_tensor_is_not_finished_quietly(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"never written: \['a'\]"):
        write_only(tmp_path / "file", "bcd")


def test_a_tensor_of_another_shape_or_type_is_not_written(tmp_path: Path) -> None:
    for wrong in (TENSORS["b"].T, TENSORS["b"].half()):
        with pytest.raises(AssertionError), PlacedFile(tmp_path / "file", ENTRIES) as file:
            file.write("b", wrong)


def test_a_late_tensor_stands_behind_the_others_however_large_it_became(tmp_path: Path) -> None:
    late = {"late.b": torch.arange(163, dtype=torch.uint8), "late.a": torch.arange(3, dtype=torch.uint8)}
    with PlacedFile(tmp_path / "file", ENTRIES, late=list(late)) as file:
        for name, tensor in late.items():
            file.append(name, tensor)
        for name, tensor in TENSORS.items():
            file.write(name, tensor)
    read = load_file(tmp_path / "file")
    assert read.keys() == TENSORS.keys() | late.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in (TENSORS | late).items())


def test_a_late_tensor_that_never_came_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="never written: late"), PlacedFile(tmp_path / "f", [], late=["late"]):
        pass

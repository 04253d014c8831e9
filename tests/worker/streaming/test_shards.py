"""A model written tensor by tensor in any order: whole at the end, or visibly not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from publisher.weights.folder import StoredWeights
from publisher.weights.index import INDEX_FILE, read_index
from publisher.weights.writing import Entry
from worker.streaming.shards import ShardWriter

TENSORS = {name: torch.full((2, 3), float(number)) for number, name in enumerate("abcd")}
FILES = {
    "model-1.safetensors": [Entry(name, "F32", (2, 3)) for name in "ab"],
    "model-2.safetensors": [Entry(name, "F32", (2, 3)) for name in "cd"],
}


def write(folder: Path, order: str, files: dict[str, list[Entry]] = FILES) -> None:
    with ShardWriter(folder, files) as shards:
        for name in order:
            shards.write(name, TENSORS[name])


@pytest.mark.parametrize("order", ["abcd", "dbca"])
def test_tensors_reach_their_files_in_any_order(tmp_path: Path, order: str) -> None:
    write(tmp_path, order)
    stored = StoredWeights(tmp_path)
    assert stored.files == {"model-1.safetensors": ["a", "b"], "model-2.safetensors": ["c", "d"]}
    assert all(torch.equal(stored.read(name), tensor) for name, tensor in TENSORS.items())


def test_one_file_has_no_index(tmp_path: Path) -> None:
    write(tmp_path, "ba", {"model.safetensors": FILES["model-1.safetensors"]})
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("order", ["abc", "abcdd"])
def test_tensor_that_is_missing_or_comes_twice_leaves_no_index(tmp_path: Path, order: str) -> None:
    with pytest.raises(AssertionError, match=r"never written|written before"):
        write(tmp_path, order)
    assert not (tmp_path / INDEX_FILE).exists()


def test_error_within_is_the_one_that_comes_out_and_leaves_no_index(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="e"):
        write(tmp_path, "ae")
    assert not (tmp_path / INDEX_FILE).exists()


def test_rows_and_notes_of_unknown_size_find_their_place(tmp_path: Path) -> None:
    note = torch.tensor(list(b"a note"), dtype=torch.uint8)
    with ShardWriter(tmp_path, FILES, late={"model-2.safetensors": ["note"]}) as shards:
        for name in "abd":
            shards.write(name, TENSORS[name])
        shards.append("note", note)
        rows: Tensor = torch.arange(6.0).reshape(2, 3)
        shards.write_rows("c", 1, rows[1:])
        shards.write_rows("c", 0, rows[:1])
    assert torch.equal(load_file(tmp_path / "model-2.safetensors")["c"], rows)
    assert torch.equal(load_file(tmp_path / "model-2.safetensors")["note"], note)
    index = read_index(tmp_path)
    assert index is not None
    assert index["note"] == "model-2.safetensors"

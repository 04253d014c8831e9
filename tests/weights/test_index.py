"""Which files hold a model, as transformers decides it, and the index that it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from publisher.errors import RequestFault, UnsupportedModel
from publisher.weights.folder import StoredWeights
from publisher.weights.index import INDEX_FILE, SINGLE_FILE, read_index, weight_files, weight_map
from publisher.weights.writing import Entry, write_index, write_tensors
from tests.models import tiny_llama


def test_index_is_the_one_that_transformers_writes(tmp_path: Path) -> None:
    tiny_llama(tmp_path, max_shard_size="20KB")
    stored = StoredWeights(tmp_path)
    theirs = json.loads((tmp_path / INDEX_FILE).read_text())
    write_index(tmp_path, {name: [stored.entries[each] for each in held] for name, held in stored.files.items()})
    assert json.loads((tmp_path / INDEX_FILE).read_text()) == theirs


def test_model_that_we_wrote_in_several_files_loads_in_transformers(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "one")
    stored, folder = StoredWeights(model), tmp_path / "two"
    folder.mkdir()
    (folder / "config.json").write_bytes((model / "config.json").read_bytes())
    names = sorted(stored.entries)
    files = {f"model-{part}-of-2.safetensors": [stored.entries[name] for name in names[part::2]] for part in (0, 1)}
    for name, entries in files.items():
        write_tensors(folder / name, entries, stored.read)
    write_index(folder, files, count=False)
    assert "total_parameters" not in (folder / INDEX_FILE).read_text()
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    assert all(torch.equal(loaded[name], stored.read(name)) for name in names)


def test_single_file_comes_before_an_index(tmp_path: Path) -> None:
    write_index(tmp_path, {"b": [Entry("x", "F32", (2,))], "a": [Entry("y", "F32", (2,)), Entry("z", "F32", (1,))]})
    assert read_index(tmp_path) == {"x": "b", "y": "a", "z": "a"}
    assert [path.name for path in weight_files(tmp_path)] == ["a", "b"]
    (tmp_path / SINGLE_FILE).touch()
    assert read_index(tmp_path) is None
    assert [path.name for path in weight_files(tmp_path)] == [SINGLE_FILE]


def test_folder_without_either_is_asked_for_the_single_file(tmp_path: Path) -> None:
    assert weight_files(tmp_path) == [tmp_path / SINGLE_FILE]


@pytest.mark.parametrize("content", [{}, {"weight_map": None}, {"weight_map": {}}, {"weight_map": {"a": 1}}])
def test_file_without_a_map_of_names_is_no_index(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / INDEX_FILE).write_text(json.dumps(content))
    with pytest.raises(RequestFault, match="is not an index of weights") as refused:
        weight_files(tmp_path)
    assert str(tmp_path / INDEX_FILE) in str(refused.value)


@pytest.mark.parametrize("name", ["../w.safetensors", "/etc/w", "sub/w", "..\\w", "..", ".", ""])
def test_index_leads_out_of_its_folder_nowhere(name: str) -> None:
    with pytest.raises(UnsupportedModel, match="which is not a file beside it"):
        weight_map({"weight_map": {"a": "w.safetensors", "b": name}}, "the index", UnsupportedModel)

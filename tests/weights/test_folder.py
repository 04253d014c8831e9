from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from publisher.errors import RequestFault
from publisher.weights.folder import StoredWeights
from publisher.weights.index import INDEX_FILE
from tests.checkpoint.pruned import make_pair


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_pair().base.save_pretrained(tmp_path, max_shard_size="20KB")
    return tmp_path


def test_weights_are_found_whatever_file_they_lie_in(model: Path) -> None:
    stored, expected = StoredWeights(model), make_pair().base.state_dict()
    assert stored.entries.keys() == expected.keys()
    assert len(stored.files) > 2
    assert all(torch.equal(stored.read(name), tensor) for name, tensor in expected.items())


def test_a_single_file_is_taken_before_an_index_as_transformers_does(model: Path) -> None:
    make_pair().base.save_pretrained(model / "one")
    (model / INDEX_FILE).rename(model / "one" / INDEX_FILE)
    assert list(StoredWeights(model / "one").files) == ["model.safetensors"]


def test_missing_and_damaged_files_are_named(model: Path) -> None:
    shard = sorted(model.glob("model-*.safetensors"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-8])
    with pytest.raises(RequestFault, match=f"{shard.name} is not a whole safetensors file"):
        StoredWeights(model)
    shard.unlink()
    with pytest.raises(RequestFault, match=f"{shard.name} is missing"):
        StoredWeights(model)
    with pytest.raises(RequestFault, match=r"model\.safetensors is missing"):
        StoredWeights(model / "nowhere")


def test_an_index_that_promises_what_no_file_holds_is_refused(model: Path) -> None:
    index = json.loads((model / INDEX_FILE).read_text())
    index["weight_map"]["model.layers.9.mlp.up_proj.weight"] = next(iter(index["weight_map"].values()))
    (model / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(RequestFault, match=r"has no tensor model\.layers\.9\.mlp\.up_proj\.weight"):
        StoredWeights(model)
    (model / INDEX_FILE).write_text("{}")
    with pytest.raises(RequestFault, match="is not an index of weights"):
        StoredWeights(model)

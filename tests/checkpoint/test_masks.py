from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from publisher.checkpoint.masks import Masks, load_masks, save_masks
from publisher.errors import RequestFault
from tests.checkpoint.pruned import MASKS

METADATA = {"format": "loram", "head_dim": "8", "group_size": "2", "kv_heads": "3", "neurons": "20"}


def test_saved_masks_read_back_equal(tmp_path: Path) -> None:
    save_masks(MASKS, tmp_path / "masks.safetensors")
    read = load_masks(tmp_path / "masks.safetensors")
    assert read.tensors().keys() == MASKS.tensors().keys()
    assert all(torch.equal(read.tensors()[name], tensor) for name, tensor in MASKS.tensors().items())
    assert (read.head_dim, read.group_size, read.kv_heads, read.neurons) == (8, 2, 3, 20)


def test_file_has_the_published_names_and_types(tmp_path: Path) -> None:
    save_masks(MASKS, tmp_path / "masks.safetensors")
    with safe_open(tmp_path / "masks.safetensors", "pt") as file:
        assert set(file.keys()) == {
            "model.layers.1.self_attn.kept_kv_heads",
            "model.layers.1.mlp.kept_neurons",
            "model.layers.2.mlp.kept_neurons",
        }
        assert file.metadata() == METADATA
        assert file.get_tensor("model.layers.1.self_attn.kept_kv_heads").dtype == torch.int32


def test_query_heads_go_with_their_kv_head() -> None:
    rows = MASKS.rows(1, "q_proj")
    assert rows is not None
    assert rows.indices.tolist() == [*range(16), *range(32, 48)]  # KV heads 0 and 2, each with 2 query heads of 8
    assert rows.full == 48


def test_layer_that_lost_nothing_has_no_cut() -> None:
    assert MASKS.rows(2, "q_proj") is None
    assert MASKS.columns(0, "down_proj") is None
    assert MASKS.rows(1, "o_proj") is None


@pytest.mark.parametrize("kept", [(0, 0), (2, 1), (-1, 1), (0, 3), ()])
def test_indices_that_cannot_be_are_refused_with_their_layer(kept: tuple[int, ...]) -> None:
    with pytest.raises(RequestFault, match="layer 4, kept_kv_heads: indices have to rise"):
        Masks(head_dim=8, group_size=2, kv_heads=3, neurons=20, kept_kv_heads={4: kept})


@pytest.mark.parametrize(
    ("tensors", "metadata", "named"),
    [
        ({"model.layers.1.mlp.kept_neurons": torch.arange(3)}, METADATA, "torch.int64"),
        ({"model.layers.1.mlp.kept": torch.arange(3, dtype=torch.int32)}, METADATA, "mlp.kept of"),
        ({"model.layers.1.mlp.kept_neurons": torch.zeros(1, 1, dtype=torch.int32)}, METADATA, r"shape \(1, 1\)"),
        ({}, METADATA | {"format": "other"}, "not a mask file"),
        ({}, {"format": "loram"}, "no head_dim"),
        ({}, METADATA | {"neurons": "many"}, "no neurons"),
        ({}, METADATA | {"neurons": "0"}, "neurons 0"),
    ],
)
def test_files_of_another_format_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str], named: str
) -> None:
    save_file(tensors, tmp_path / "masks.safetensors", metadata=metadata)
    with pytest.raises(RequestFault, match=named):
        load_masks(tmp_path / "masks.safetensors")


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestFault, match="does not exist"):
        load_masks(tmp_path / "masks.safetensors")
    (tmp_path / "masks.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(RequestFault, match="not a whole safetensors file"):
        load_masks(tmp_path / "masks.safetensors")

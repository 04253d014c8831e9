from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from publisher.architecture.structure import LayerKind, Part, TensorSpec, Unit
from publisher.architecture.structure_json import to_json
from publisher.checkpoint.masks import Masks, load_masks, save_masks
from publisher.errors import RequestFault
from tests.checkpoint.pruned import MASKS

STRUCTURE = to_json(MASKS.kinds, MASKS.kind_of, MASKS.prefix)
METADATA = {"format": "loram", "structure": STRUCTURE}


def test_saved_masks_read_back_equal(tmp_path: Path) -> None:
    save_masks(MASKS, tmp_path / "masks.safetensors")
    read = load_masks(tmp_path / "masks.safetensors")
    assert {key: tuple(kept) for key, kept in read.kept.items()} == MASKS.kept
    assert (read.prefix, read.kind_of) == (MASKS.prefix, MASKS.kind_of)
    assert [kind.parameters for kind in read.kinds] == [kind.parameters for kind in MASKS.kinds]
    assert [kind.units for kind in read.kinds] == [kind.units for kind in MASKS.kinds]


def test_equal_masks_give_equal_bytes(tmp_path: Path) -> None:
    save_masks(MASKS, tmp_path / "one")
    save_masks(replace(MASKS, kept=dict(reversed(MASKS.kept.items()))), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_file_has_the_published_names_and_types(tmp_path: Path) -> None:
    experts = replace(MASKS, kinds=(replace(MASKS.kinds[0], units=MASKS.kinds[0].units | {Unit.EXPERTS: 4}),))
    save_masks(replace(experts, kept=experts.kept | {(3, Unit.EXPERTS): (0, 3)}), tmp_path / "masks.safetensors")
    with safe_open(tmp_path / "masks.safetensors", "pt") as file:
        assert set(file.keys()) == {
            "model.layers.1.self_attn.kept_kv_heads",
            "model.layers.1.mlp.kept_neurons",
            "model.layers.2.mlp.kept_neurons",
            "model.layers.3.mlp.kept_experts",
        }
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.int32}  # noqa: SIM118


def test_query_heads_go_with_their_kv_head() -> None:
    found = MASKS.parameter("model.layers.1.self_attn.q_proj.weight")
    assert found is not None
    rows = found.along(0)
    assert rows is not None
    assert rows.indices.tolist() == [*range(16), *range(32, 48)]  # KV heads 0 and 2, each with 2 query heads of 8
    assert rows.full == 48


def test_packed_projections_lose_a_slice_of_each_part() -> None:
    packed = TensorSpec((12, 5), 0, (Part(Unit.KV_HEADS, 0, 2), Part(Unit.KV_HEADS, 6, 1), Part(Unit.KV_HEADS, 9, 1)))
    masks = Masks((LayerKind({Unit.KV_HEADS: 3}, {"attention.qkv.weight": packed}),), (0,), {(0, Unit.KV_HEADS): (1,)})
    found = masks.parameter("model.layers.0.attention.qkv.weight")
    assert found is not None
    rows = found.along(0)
    assert rows is not None
    assert rows.indices.tolist() == [2, 3, 7, 10]
    assert found.along(1) is None
    assert (found.full, found.left) == ((12, 5), (4, 5))


def test_layer_that_lost_nothing_has_no_cut() -> None:
    for name in ("2.self_attn.q_proj", "0.mlp.down_proj"):
        found = MASKS.parameter(f"model.layers.{name}.weight")
        assert found is not None
        assert (found.cut, found.left) == (None, found.full)
    narrowed = MASKS.parameter("base_model.model.model.layers.1.self_attn.o_proj.weight")
    assert narrowed is not None
    assert narrowed.along(0) is None
    assert narrowed.along(1) is not None
    assert MASKS.cut(1, "input_layernorm.weight") is None


@pytest.mark.parametrize("kept", [(0, 0), (2, 1), (-1, 1), (0, 3), ()])
def test_indices_that_cannot_be_are_refused_with_their_layer(kept: tuple[int, ...]) -> None:
    with pytest.raises(RequestFault, match="layer 3, kept_kv_heads: indices have to rise"):
        replace(MASKS, kept={(3, Unit.KV_HEADS): kept})


@pytest.mark.parametrize("key", [(4, Unit.KV_HEADS), (1, Unit.EXPERTS)])
def test_units_that_the_model_does_not_have_are_refused(key: tuple[int, Unit]) -> None:
    with pytest.raises(RequestFault, match=f"layer {key[0]}, kept_{key[1]}"):
        replace(MASKS, kept={key: (0,)})


@pytest.mark.parametrize(
    ("tensors", "metadata", "named"),
    [
        ({"model.layers.1.mlp.kept_neurons": torch.arange(3)}, METADATA, "torch.int64"),
        ({"model.layers.1.mlp.kept": torch.arange(3, dtype=torch.int32)}, METADATA, "mlp.kept of"),
        ({"model.layers.1.mlp.kept_neurons": torch.zeros(1, 1, dtype=torch.int32)}, METADATA, r"shape \(1, 1\)"),
        ({}, METADATA | {"format": "other"}, "not a mask file"),
        ({}, {"format": "loram"}, "no structure"),
        ({}, METADATA | {"structure": "[]"}, "cannot be read"),
        ({}, METADATA | {"structure": STRUCTURE.replace("kv_heads", "rooms")}, "rooms"),
        ({}, METADATA | {"structure": STRUCTURE.replace("[0,0,0,0]", "[0,0,7,0]")}, r"kinds of layers \(0, 0, 7"),
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

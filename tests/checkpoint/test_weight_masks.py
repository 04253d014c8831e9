from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from publisher.checkpoint.masks import Masks, load_masks, save_masks
from publisher.checkpoint.weight_masks import WeightMasks, WeightMaskWriter, count_kept, open_masks, pack, unpack
from publisher.errors import RequestFault
from tests.checkpoint.pruned import MASKS

SHAPES = {"model.layers.1.mlp.up_proj.weight": (5, 13), "model.layers.10.mlp.up_proj.weight": (4, 16)}


def random_mask(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5


def written(path: Path) -> dict[str, torch.Tensor]:
    masks = {name: random_mask(shape, seed) for seed, (name, shape) in enumerate(SHAPES.items())}
    with WeightMaskWriter(path, SHAPES) as writer:
        for name, mask in masks.items():
            writer.write(name, mask)
    return masks


@settings(deadline=None, max_examples=80)
@given(rows=st.integers(1, 9), columns=st.integers(1, 40), seed=st.integers(0, 99))
def test_packed_masks_unpack_equal(rows: int, columns: int, seed: int) -> None:
    mask = random_mask((rows, columns), seed)
    packed = pack(mask)
    assert (packed.dtype, packed.shape) == (torch.uint8, (rows, (columns + 7) // 8))
    assert torch.equal(unpack(packed, columns), mask)
    assert count_kept(packed) == int(mask.sum())


def test_bits_lie_where_the_format_says() -> None:
    mask = torch.zeros(2, 11, dtype=torch.bool)
    mask[0, 0] = mask[0, 3] = mask[1, 10] = True
    assert pack(mask).tolist() == [[0b1001, 0], [0, 0b100]]


def test_masks_read_back_one_by_one(tmp_path: Path) -> None:
    masks = written(tmp_path / "masks.safetensors")
    read = WeightMasks(tmp_path / "masks.safetensors")
    assert read.weights == sorted(masks)
    assert "model.layers.2.mlp.up_proj.weight" not in read
    for name, mask in masks.items():
        assert name in read
        assert read.shape(name) == SHAPES[name]
        assert torch.equal(read.mask(name), mask)


def test_file_has_the_published_names_and_one_bit_a_weight(tmp_path: Path) -> None:
    written(tmp_path / "masks.safetensors")
    with safe_open(tmp_path / "masks.safetensors", "pt") as file:
        assert sorted(file.keys()) == [
            "model.layers.1.mlp.up_proj.kept_weights",
            "model.layers.10.mlp.up_proj.kept_weights",
        ]
        assert file.get_tensor("model.layers.10.mlp.up_proj.kept_weights").shape == (4, 2)


def test_order_of_writing_does_not_change_the_bytes(tmp_path: Path) -> None:
    masks = written(tmp_path / "one")
    with WeightMaskWriter(tmp_path / "two", dict(reversed(SHAPES.items()))) as writer:
        for name in reversed(masks):
            writer.write(name, masks[name])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_either_kind_of_file_is_told_apart(tmp_path: Path) -> None:
    written(tmp_path / "weights.safetensors")
    save_masks(MASKS, tmp_path / "units.safetensors")
    assert isinstance(open_masks(tmp_path / "weights.safetensors"), WeightMasks)
    assert isinstance(open_masks(tmp_path / "units.safetensors"), Masks)
    with pytest.raises(RequestFault, match="no structure"):
        load_masks(tmp_path / "weights.safetensors")
    with pytest.raises(RequestFault, match="no masks of single weights"):
        WeightMasks(tmp_path / "units.safetensors")


def test_files_of_another_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestFault, match="does not exist"):
        open_masks(tmp_path / "missing")
    (tmp_path / "damaged").write_bytes(b"no safetensors")
    for read in (open_masks, WeightMasks):
        with pytest.raises(RequestFault, match="not a whole safetensors file"):
            read(tmp_path / "damaged")
    save_file(
        {"a.kept_weights": torch.zeros(2, 2)}, tmp_path / "floats", metadata={"format": "loram", "in_features": "{}"}
    )
    with pytest.raises(RequestFault, match=r"a\.kept_weights of F32"):
        WeightMasks(tmp_path / "floats")

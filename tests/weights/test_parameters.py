"""Parameters by headers: shapes of 4-bit weights, and what an index says wrongly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.errors import RequestFault
from publisher.weights.index import INDEX_FILE
from publisher.weights.parameters import read_parameters
from tests.models import tiny_llama
from worker.quantization.nf4 import quantize_nf4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"), dtype=torch.bfloat16, max_shard_size="40KB")


@pytest.mark.parametrize("embeddings", [False, True], ids=["layers", "embeddings too"])
def test_weights_in_4_bits_have_the_shapes_that_they_have_in_bf16(base: Path, tmp_path: Path, embeddings: bool) -> None:
    quantize_nf4(base, tmp_path / "model", "cpu", include_embeddings=embeddings)
    whole, packed = read_parameters(base), read_parameters(tmp_path / "model")
    assert packed.shapes == whole.shapes
    assert packed.values == sum(
        tensor.numel() for path in base.glob("*.safetensors") for tensor in load_file(path).values()
    )
    assert "model.layers.0.mlp.up_proj.weight" in packed.four_bit
    assert ("model.embed_tokens.weight" in packed.four_bit) is embeddings
    assert (whole.four_bit, whole.misplaced, packed.misplaced) == (frozenset(), (), ())


def changed_index(base: Path, folder: Path, **files: str | None) -> Path:
    """The model with an index that has tensors of these short names elsewhere, or not at all."""
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = json.loads((folder / INDEX_FILE).read_text())
    for short, file in files.items():
        name = next(name for name in content["weight_map"] if name.endswith(f"{short}.weight"))
        if file is None:
            del content["weight_map"][name]
        else:
            content["weight_map"][name] = file
    (folder / INDEX_FILE).write_text(json.dumps(content))
    return folder


def test_tensors_that_are_not_where_the_index_says_are_named(base: Path, tmp_path: Path) -> None:
    files = sorted(path.name for path in base.glob("*.safetensors"))
    folder = changed_index(base, tmp_path / "moved", embed_tokens=files[-1], norm=None)
    (elsewhere, unlisted) = read_parameters(folder).misplaced[:2]
    assert f"holds model.embed_tokens.weight, which {INDEX_FILE} has in {files[-1]}" in elsewhere
    assert unlisted.endswith(f"which {INDEX_FILE} has not")


def test_a_tensor_that_nobody_holds_or_two_files_hold_is_named(base: Path, tmp_path: Path) -> None:
    folder = changed_index(base, tmp_path / "twice")
    first, second = sorted(folder.glob("*.safetensors"))[:2]
    moved, name = load_file(first), sorted(load_file(second))[0]
    save_file(moved | {name: load_file(second)[name]}, first, metadata={"format": "pt"})
    assert f"2 files hold {name}" in read_parameters(folder).misplaced
    lost = sorted(moved)[0]
    save_file({key: value for key, value in moved.items() if key != lost}, first, metadata={"format": "pt"})
    assert read_parameters(folder).misplaced == (f"{first.name} has no {lost}, which {INDEX_FILE} says is there",)


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (b'{"shape": [3, 5]}', r"has 4 bytes for w, whose note says 4 bits of shape \(3, 5\)"),
        (b'{"shape": "x"}', "does not say the shape of a weight"),
        (b"[", "does not say the shape of a weight"),
    ],
)
def test_a_note_that_is_of_another_weight_is_refused(tmp_path: Path, note: bytes, said: str) -> None:
    packed = {"w": torch.zeros(4, 1, dtype=torch.uint8)}
    noted = {"w.quant_state.bitsandbytes__nf4": torch.tensor(list(note), dtype=torch.uint8)}
    save_file(packed | noted, tmp_path / "model.safetensors")
    with pytest.raises(RequestFault, match=said):
        read_parameters(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestFault, match=r"model\.safetensors is missing"):
        read_parameters(tmp_path)

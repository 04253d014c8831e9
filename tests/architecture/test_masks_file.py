"""What masks say to those who read them without torch, against the file that publisher.checkpoint.masks writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.architecture.masks_file import KeptUnits, read_kept_units
from publisher.checkpoint.masks import save_masks
from publisher.errors import PublisherError
from tests.checkpoint.pruned import MASKS


def read(content: bytes) -> KeptUnits | None:
    return read_kept_units(len(content), lambda start, end: content[start:end])


@pytest.fixture
def written(tmp_path: Path) -> bytes:
    save_masks(MASKS, tmp_path / "masks")
    return (tmp_path / "masks").read_bytes()


def test_kept_indices_are_those_that_were_written(written: bytes) -> None:
    found = read(written)
    assert found is not None
    assert {key: list(kept) for key, kept in found.kept.items()} == {
        key: list(kept) for key, kept in MASKS.kept.items()
    }
    for layer in range(MASKS.layers):
        for unit, count in MASKS.counts(layer).items():
            assert found.full(layer, unit) == MASKS.full(layer, unit)
            assert len(found.indices(layer, unit)) == count


def test_masks_of_single_weights_are_no_kept_units(written: bytes) -> None:
    assert read(with_metadata(written, {"format": "loram"})) is None


@pytest.mark.parametrize(
    "structure", ["", "[]", "{}", '{"kinds": [], "kind_of": [0], "prefix": "model.layers."}', '{"kinds": 1}']
)
def test_a_structure_that_is_none_is_refused_as_such(written: bytes, structure: str) -> None:
    with pytest.raises(PublisherError, match=r"pruning_masks\.safetensors"):
        read(with_metadata(written, {"format": "loram", "structure": structure}))


def test_a_file_that_was_cut_short_is_refused(written: bytes) -> None:
    with pytest.raises(PublisherError, match="truncated"):
        read(written[:-4])


def test_indices_beyond_the_layer_are_refused(written: bytes) -> None:
    with pytest.raises(PublisherError, match="has no such"):
        read(written[:-4] + (10**6).to_bytes(4, "little"))


def with_metadata(content: bytes, metadata: dict[str, str]) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]) | {"__metadata__": metadata}).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + length :]

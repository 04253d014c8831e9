"""Masks, config.json and manifest are whole and agree, or are not used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.integrity import checked
from publisher.checkpoint.recovery import recover_adapter
from publisher.errors import RequestFault
from publisher.manifest.manifest import Manifest, digest_of, record
from tests.checkpoint.pruned import lora, make_pair, save_checkpoint


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("published"), make_pair().pruned)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    lora(make_pair().pruned).save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(published: Path, tmp_path: Path) -> Path:
    shutil.copytree(published, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def rewritten(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def described(checkpoint: Path, **keys: Any) -> None:
    """The manifest with other values, and digests that fit all files."""
    names = Manifest.read(checkpoint).files
    files = {name: record(checkpoint / name) for name in names}
    Manifest.read(checkpoint).model_copy(update={"files": files, **keys}).write(checkpoint)


@pytest.mark.parametrize("byte", [-1, -4, 200])
def test_one_flipped_bit_in_the_masks_is_noticed(checkpoint: Path, adapter: Path, tmp_path: Path, byte: int) -> None:
    path = checkpoint / "pruning_masks.safetensors"
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    with pytest.raises(RequestFault, match=r"pruning_masks\.safetensors has sha256 .* was published"):
        recover_adapter(adapter, checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_config_that_is_not_the_published_one_is_refused(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    rewritten(checkpoint / "config.json", vocab_size=65)
    with pytest.raises(RequestFault, match=r"config\.json has"):
        recover_adapter(adapter, checkpoint, tmp_path / "out")


def test_manifest_whose_base_was_edited_is_refused(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    base = json.loads((checkpoint / "loram.json").read_text())["base"]
    rewritten(checkpoint / "loram.json", base=base | {"repo_id": "someone/else"})
    with pytest.raises(RequestFault, match="not as it was written"):
        recover_adapter(adapter, checkpoint, tmp_path / "out")


def test_manifest_that_lost_its_digest_is_refused_and_an_older_one_without_is_said(
    checkpoint: Path, adapter: Path, tmp_path: Path
) -> None:
    content = json.loads((checkpoint / "loram.json").read_text())
    assert content.pop("digest") == digest_of(content)
    (checkpoint / "loram.json").write_text(json.dumps(content))
    with pytest.raises(RequestFault, match="has lost its digest"):
        recover_adapter(adapter, checkpoint, tmp_path / "out")
    (checkpoint / "loram.json").write_text(json.dumps(content | {"format_version": "2.2"}))
    report = recover_adapter(adapter, checkpoint, tmp_path / "out")
    assert [note for note in report.notes if "has no digest of its own" in note]


def test_file_that_the_manifest_does_not_name_is_refused(checkpoint: Path) -> None:
    described(checkpoint, files={})
    with pytest.raises(RequestFault, match="is not among the files"):
        checked(checkpoint)


def test_masks_of_another_checkpoint_with_fitting_digests_contradict_the_config(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    layers = config["per_layer_config"]
    name = next(key for key in layers if int(key) == 2)
    layers[name]["intermediate_size"] = 9
    rewritten(checkpoint / "config.json", per_layer_config=layers)
    described(checkpoint)
    with pytest.raises(RequestFault, match=r"layer 2 has 8 neurons by pruning_masks.*intermediate_size 9 in config"):
        checked(checkpoint)


def test_layer_that_config_has_whole_and_masks_cut_is_a_contradiction(checkpoint: Path) -> None:
    layers = json.loads((checkpoint / "config.json").read_text())["per_layer_config"]
    rewritten(checkpoint / "config.json", per_layer_config={k: v for k, v in layers.items() if int(k) != 2})
    described(checkpoint)
    with pytest.raises(RequestFault, match=r"layer 2 has 8 neurons .*intermediate_size 20 in config"):
        checked(checkpoint)


def test_widths_in_the_manifest_contradict_the_masks(checkpoint: Path) -> None:
    widths = Manifest.read(checkpoint).widths
    described(checkpoint, widths=[*widths[:3], widths[1]])
    with pytest.raises(RequestFault, match=r"layer 3 has 3 kv_heads by pruning_masks\.safetensors, 2 by loram\.json"):
        checked(checkpoint)


def test_number_of_layers_contradicts_the_config(checkpoint: Path) -> None:
    rewritten(checkpoint / "config.json", num_hidden_layers=5)
    described(checkpoint)
    with pytest.raises(RequestFault, match=r"config\.json has 5 layers, loram\.json 4"):
        checked(checkpoint)


def test_whole_checkpoint_is_what_it_says(published: Path) -> None:
    manifest, masks = checked(published)
    assert manifest.digest is not None
    assert masks.layers == 4


def test_manifest_that_nests_without_end_is_one_sentence(checkpoint: Path) -> None:
    (checkpoint / "loram.json").write_text("[" * 100_000)
    with pytest.raises(RequestFault, match="is not JSON"):
        checked(checkpoint)

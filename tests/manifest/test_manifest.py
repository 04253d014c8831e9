from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.errors import RequestFault
from publisher.manifest.manifest import Manifest, digest_of, verify
from tests.checkpoint.pruned import make_pair, save_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path, make_pair().pruned)


def changed(checkpoint: Path, **keys: object) -> None:
    path = checkpoint / "loram.json"
    content = json.loads(path.read_text()) | keys
    path.write_text(json.dumps(content | {"digest": digest_of(content)}))


def test_whole_checkpoint_verifies_also_with_files_of_others_beside_it(checkpoint: Path) -> None:
    (checkpoint / ".gitattributes").write_text("*")
    assert verify(checkpoint) == []


def test_each_damage_is_named(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "generation_config.json").unlink()
    problems = verify(checkpoint)
    assert [problem.split()[0] for problem in problems] == ["config.json", "generation_config.json", weights.name]
    assert "has 2 bytes" in problems[0]
    assert "is missing" in problems[1]
    assert "has sha256" in problems[2]


def test_written_manifest_reads_back_equal(checkpoint: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(checkpoint)
    manifest.write(checkpoint)
    assert Manifest.read(checkpoint) == manifest


def test_keys_of_a_newer_minor_version_are_kept(checkpoint: Path) -> None:
    changed(checkpoint, format_version="2.7", colour="blue")
    Manifest.read(checkpoint).write(checkpoint)
    written = json.loads((checkpoint / "loram.json").read_text())
    assert (written["format_version"], written["colour"]) == ("2.7", "blue")


@pytest.mark.parametrize("version", ["3.0", "10.1", "next"])
def test_newer_major_version_is_refused_with_the_way_out(checkpoint: Path, version: str) -> None:
    changed(checkpoint, format_version=version)
    with pytest.raises(RequestFault, match=rf"format_version {version}; this version reads up to 2\.x\. Upgrade"):
        Manifest.read(checkpoint)


def test_checkpoint_of_the_first_major_version_still_verifies(checkpoint: Path) -> None:
    """Its masks did not say the model's structure; its manifest had no digest, and one width for all layers."""
    path = checkpoint / "loram.json"
    content = json.loads(path.read_text())
    del content["digest"], content["text"]
    path.write_text(json.dumps(content | {"format_version": "1.0", "base_widths": content["base_widths"][0]}))
    assert verify(checkpoint) == []
    (checkpoint / "config.json").write_text("{}")
    assert len(verify(checkpoint)) == 1


def test_what_is_not_a_manifest_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    changed(checkpoint, recipe_digest="short")
    with pytest.raises(RequestFault, match="recipe_digest"):
        Manifest.read(checkpoint)
    for text, named in (("[]", "no format_version"), ("{", "is not JSON")):
        (checkpoint / "loram.json").write_text(text)
        with pytest.raises(RequestFault, match=named):
            Manifest.read(checkpoint)
    (checkpoint / "loram.json").unlink()
    with pytest.raises(RequestFault, match=r"has no loram\.json"):
        Manifest.read(checkpoint)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../b", "", "a\\b", "a\0b"])
@pytest.mark.parametrize("of_base", [False, True])
def test_a_manifest_names_no_file_outside_its_folder(checkpoint: Path, name: str, of_base: bool) -> None:
    content = json.loads((checkpoint / "loram.json").read_bytes())
    (content["base"] if of_base else content)["files"][name] = {"size": 1, "sha256": "0" * 64}
    with pytest.raises(RequestFault, match="is no path within a folder"):
        Manifest.parse(content, "loram.json")

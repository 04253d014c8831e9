from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from publisher.client.verify import verify
from tests.checkpoint.pruned import make_pair, save_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "checkpoint", make_pair().pruned)


def run(checkpoint: Path) -> Result:
    return CliRunner().invoke(verify, [str(checkpoint)])


def test_whole_checkpoint_is_said_to_be(checkpoint: Path) -> None:
    result = run(checkpoint)
    assert result.exit_code == 0, result.output
    assert "all 4 files are as they were published" in result.stdout


def test_a_flipped_bit_in_the_weights_and_a_missing_file_are_named(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (checkpoint / "generation_config.json").unlink()
    result = run(checkpoint)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert [line.split()[1] for line in lines] == ["generation_config.json", "model.safetensors"]


def test_what_is_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "is not a LoRAM checkpoint" in result.stderr


def test_an_adapter_that_was_saved_into_the_checkpoint_is_named(checkpoint: Path) -> None:
    (checkpoint / "adapter_config.json").write_text("{}")
    result = CliRunner().invoke(verify, [str(checkpoint)])
    assert result.exit_code == 1
    assert "adapter_config.json is not among the files that loram.json names" in result.stderr


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_what_is_not_there_is_no_damaged_checkpoint(tmp_path: Path, form: list[str]) -> None:
    done = CliRunner().invoke(verify, [str(tmp_path / "nowhere"), *form])
    assert (done.exit_code, done.stdout) == (5, "")
    assert "is neither a folder nor a repository's name" in done.stderr


def test_the_document_of_what_is_no_checkpoint_has_all_fields(tmp_path: Path) -> None:
    done = CliRunner().invoke(verify, [str(tmp_path), "--json"])
    document = json.loads(done.stdout)
    assert (done.exit_code, document["whole"], document["files"], document["signed_by"]) == (1, False, None, None)
    assert document["problems"]

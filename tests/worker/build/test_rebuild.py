"""A checkpoint is made again from what its manifest says, and compared byte by byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from publisher.manifest.manifest import Manifest, record
from tests.models import tiny_llama
from tests.worker.stages.building import prose, recipe
from worker.build.command import build
from worker.build.rebuild_command import rebuild


def invoke(command: object, *arguments: object) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base model, a corpus, and the checkpoint that was built of them."""
    root = tmp_path_factory.mktemp("made")
    (root / "recipe.json").write_text(recipe().canonical_json())
    corpus = prose(root / "prose.jsonl")
    base = tiny_llama(root / "base")
    made = invoke(build, base, root / "checkpoint", "--recipe", root / "recipe.json", "--corpus", f"prose={corpus}")
    assert made.exit_code == 0, made.output
    return root


def again(made: Path, out: Path, base: Path | None = None) -> Result:
    options = ("--base", base or made / "base", "--corpus", f"prose={made / 'prose.jsonl'}")
    return invoke(rebuild, made / "checkpoint", out, *options)


def test_the_same_comes_out(made: Path, tmp_path: Path) -> None:
    done = again(made, tmp_path / "again")
    assert done.exit_code == 0, done.output
    compared = [line.split() for line in done.stdout.splitlines()]
    assert {state for state, _ in compared} == {"same"}
    assert {"model.safetensors", "pruning_masks.safetensors", "config.json"} <= {name for _, name in compared}
    assert "byte by byte" in done.stderr
    weights = [(folder / "model.safetensors").read_bytes() for folder in (made / "checkpoint", tmp_path / "again")]
    assert weights[0] == weights[1]


def test_what_comes_out_otherwise_is_named(made: Path, tmp_path: Path) -> None:
    """Of a checkpoint whose masks file is not what its recipe makes, though its manifest names it rightly."""
    forged = tmp_path / "forged"
    shutil.copytree(made / "checkpoint", forged)
    config = json.loads((forged / "config.json").read_text()) | {"rope_theta": 1.0}
    (forged / "config.json").write_text(json.dumps(config))
    manifest = Manifest.read(forged)
    files = dict(manifest.files) | {"config.json": record(forged / "config.json")}
    manifest.model_copy(update={"files": files, "software": {**manifest.software, "torch": "0.1"}}).write(forged)
    options = ("--base", made / "base", "--corpus", f"prose={made / 'prose.jsonl'}")
    done = invoke(rebuild, forged, tmp_path / "again", *options)
    assert done.exit_code == 1
    assert "differs  config.json" in done.stdout
    assert "same  model.safetensors" in done.stdout
    assert "torch: 0.1 then" in done.stderr
    assert "1 of " in done.stderr


def test_another_base_model_is_refused_before_work(made: Path, tmp_path: Path) -> None:
    done = again(made, tmp_path / "again", tiny_llama(tmp_path / "other", seed=5))
    assert done.exit_code == 4
    assert "is not the base model that the checkpoint was made from: model.safetensors" in done.stderr
    assert not (tmp_path / "again").exists()


def test_a_base_without_a_public_name_has_to_be_named(made: Path, tmp_path: Path) -> None:
    done = invoke(rebuild, made / "checkpoint", tmp_path / "again", "--corpus", f"prose={made / 'prose.jsonl'}")
    assert done.exit_code == 4
    assert "Name its folder with --base" in done.stderr

"""Recover, merge and verify where only what the package itself asks for is installed: no transformers, no PEFT."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors.torch import load_file

from publisher.checkpoint.recovery import recover_adapter
from publisher.checkpoint.recovery.from_merged import recover_merged
from tests.checkpoint.pruned import lora, make_pair, save_checkpoint
from tests.checkpoint.recovery.test_merging import prepared
from tests.checkpoint.recovery.test_merging import trained as trained_sparse

HERE = Path(__file__).parents[2]
WEIGHTS, MODEL = "adapter_model.safetensors", "model.safetensors"


def needed(requirements: Iterable[str], found: dict[str, Distribution]) -> dict[str, Distribution]:
    """What `requirements` name, and all that it requires itself, without extras."""
    for requirement in map(Requirement, requirements):
        key = canonicalize_name(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and key not in found:
            found[key] = distribution(requirement.name)
            needed(found[key].requires or (), found)
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages like that of `pip install loram-publisher`."""
    folder = tmp_path_factory.mktemp("site-packages")
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    packages = needed(project["dependencies"], {})
    assert not {"transformers", "peft", "bitsandbytes", "accelerate", "fastapi"} & packages.keys()
    for package in packages.values():
        for top in {Path(file).parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            target = folder / top
            if not target.exists():
                target.symlink_to(Path(str(package.locate_file(top))))
    return folder


#: Runs commands one after the other, in one process: importing torch takes seconds.
PROGRAM = """
import importlib.util, json, sys
assert importlib.util.find_spec("transformers") is None
import publisher.checkpoint
from publisher.client.main import main
for command in json.loads(sys.argv[1]):
    sys.argv = ["publisher", *command]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


def publisher(bare: Path, *commands: Sequence[object]) -> str:
    """What all of them print; they have to end with 0."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM, json.dumps([list(map(str, command)) for command in commands])],
        env={"PYTHONPATH": f"{bare}:{HERE}", "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=bare,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def same(first: Path, second: Path) -> bool:
    ours, theirs = load_file(first), load_file(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_lora_is_recovered_and_merged_without_transformers(bare: Path, tmp_path: Path) -> None:
    pair = make_pair()
    checkpoint = save_checkpoint(tmp_path / "checkpoint", pair.pruned)
    pair.base.save_pretrained(tmp_path / "base")
    lora(pair.pruned, target_modules=["q_proj", "o_proj", "up_proj", "embed_tokens"]).save_pretrained(tmp_path / "a")
    options = ("--checkpoint", checkpoint, "--base", tmp_path / "base")
    said = publisher(
        bare,
        ("verify", checkpoint),
        ("recover", tmp_path / "a", "--output", tmp_path / "bare", *options),
        ("merge", tmp_path / "base", tmp_path / "bare", tmp_path / "merged"),
        ("recover", tmp_path / "a", "--output", tmp_path / "at-once", "--merge", *options),
    )
    assert "all 4 files are as they were published" in said
    recover_adapter(tmp_path / "a", checkpoint, tmp_path / "here", base_model=str(tmp_path / "base"))
    assert same(tmp_path / "bare" / WEIGHTS, tmp_path / "here" / WEIGHTS)
    assert same(tmp_path / "merged" / MODEL, tmp_path / "at-once" / MODEL)


def test_an_update_of_masked_weights_is_merged_without_transformers(bare: Path, tmp_path: Path) -> None:
    base, checkpoint = prepared(tmp_path)
    trained_sparse(checkpoint, tmp_path / "a")
    options = ("--checkpoint", checkpoint, "--base", base)
    publisher(bare, ("recover", tmp_path / "a", "--output", tmp_path / "out", *options))
    recover_adapter(tmp_path / "a", checkpoint, tmp_path / "here", base_model=str(base))
    assert same(tmp_path / "out" / MODEL, tmp_path / "here" / MODEL)


def test_a_tuned_copy_is_recovered_without_transformers(bare: Path, tmp_path: Path) -> None:
    pair = make_pair()
    checkpoint = save_checkpoint(tmp_path / "checkpoint", pair.pruned)
    pair.base.save_pretrained(tmp_path / "base")
    pair.pruned.model.layers[1].mlp.up_proj.weight.data += 0.125
    pair.pruned.save_pretrained(tmp_path / "tuned")
    options = ("--checkpoint", checkpoint, "--base", tmp_path / "base")
    copy = ("recover", "--from-merged", tmp_path / "tuned")
    publisher(
        bare,
        (*copy, "--output", tmp_path / "merged", *options),
        (*copy, "--output", tmp_path / "lora", "--rank", 4, *options),
    )
    base = str(tmp_path / "base")
    recover_merged(tmp_path / "tuned", checkpoint, tmp_path / "merged here", base_model=base)
    assert same(tmp_path / "merged" / MODEL, tmp_path / "merged here" / MODEL)
    recover_merged(tmp_path / "tuned", checkpoint, tmp_path / "lora here", base_model=base, rank=4)
    assert same(tmp_path / "lora" / WEIGHTS, tmp_path / "lora here" / WEIGHTS)


def test_what_peft_is_asked_for_names_the_extra_that_brings_it(bare: Path, tmp_path: Path) -> None:
    pair = make_pair()
    checkpoint = save_checkpoint(tmp_path / "checkpoint", pair.pruned)
    lora(pair.pruned, use_dora=True).save_pretrained(tmp_path / "a")
    with pytest.raises(AssertionError, match=r"pip install 'loram-publisher\[train\]'"):
        publisher(bare, ("recover", tmp_path / "a", "--checkpoint", checkpoint, "--output", tmp_path / "out"))
    assert not (tmp_path / "out").exists()

"""A compressed checkpoint is loaded by its repository's name: the masks come along as one more file of weights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from publisher.checkpoint.compression import compress_folder
from tests.checkpoint.pruned import make_pair, manifest
from tests.checkpoint.sparse import write_masks, zero_pruned
from tests.worker.stages.conftest import RunningHub
from worker.context import RecordingContext
from worker.stages import publish
from worker.stages.inputs import PublishInputs

LOADED = """
import sys, torch, publisher.checkpoint
from transformers import AutoModelForCausalLM
torch.save(AutoModelForCausalLM.from_pretrained("org/compressed").state_dict(), sys.argv[1])
"""


def test_compressed_checkpoint_loads_by_its_repositorys_name(
    hub: RunningHub, tmp_path: Path, output: Callable[[], Path]
) -> None:
    make_pair().base.save_pretrained(tmp_path / "dense", max_shard_size="20KB")
    masks = write_masks(tmp_path / "dense", tmp_path / "masks.safetensors")
    zero_pruned(tmp_path / "dense", masks)
    checkpoint = output()
    compress_folder(tmp_path / "dense", masks, checkpoint)
    manifest(checkpoint, "org/base", "c" * 40).write(checkpoint)
    publish.run(hub.request("org/compressed"), PublishInputs(checkpoint), output(), RecordingContext())

    home = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOADED, str(tmp_path / "state.pt")]
    subprocess.run(command, env=os.environ | home, check=True, capture_output=True)
    found = torch.load(tmp_path / "state.pt")
    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "dense").state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())

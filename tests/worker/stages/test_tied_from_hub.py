"""A checkpoint that is loaded by its repository's name is as known as one in a folder; recovery reads it from there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.worker.stages.conftest import RunningHub
from worker.context import RecordingContext
from worker.stages import publish
from worker.stages.inputs import PublishInputs

TRAINED = """
import sys, publisher.checkpoint
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("org/tied")
get_peft_model(model, LoraConfig(target_modules=["up_proj"], task_type="CAUSAL_LM")).save_pretrained(sys.argv[1])
"""


def test_adapter_of_a_repository_is_verified_and_damaged_masks_from_a_hub_are_refused(
    hub: RunningHub, checkpoint: Path, tmp_path: Path, output: Callable[[], Path]
) -> None:
    publish.run(hub.request("org/tied"), PublishInputs(checkpoint), output(), RecordingContext())
    trained = python(hub, tmp_path / "home", "-c", TRAINED, str(tmp_path / "adapter"))
    assert trained.returncode == 0, trained.stderr

    def recovered(home: str) -> subprocess.CompletedProcess[str]:
        command = ["recover", str(tmp_path / "adapter"), "--checkpoint", "org/tied"]
        return python(
            hub, tmp_path / home, "-m", "publisher.client.main", *command, "--output", str(tmp_path / home / "out")
        )

    whole = recovered("whole")
    assert "(verified: " in whole.stdout, whole.stderr
    hub.damaged.add("pruning_masks.safetensors")
    try:
        damaged = recovered("damaged")
    finally:
        hub.damaged.clear()
    assert (damaged.returncode, damaged.stdout) == (4, "")
    assert "pruning_masks.safetensors" in damaged.stderr


def python(hub: RunningHub, home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    online = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0"}
    return subprocess.run(
        [sys.executable, *command], env=os.environ | online, check=False, capture_output=True, text=True
    )

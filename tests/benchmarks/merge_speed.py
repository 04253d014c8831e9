"""`publisher merge`, and recovery of a single-weight checkpoint, beside `cp` of the same base model, page cache warm.

    python -m tests.benchmarks.merge_speed [--work FOLDER] [--runs 5]

The target is 0.5 or more of cp's speed, in bytes of the base model per second. With `--threads` more than free cores
it says little: torch's threads wait for each other. Runs alternate and medians count; before
each timed run the same side runs once untimed, so that each finds the same free memory (copy_speed.py has why).
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from publisher.checkpoint.recovery import merge_folder
from publisher.checkpoint.recovery.merge_adapter import merge_adapter
from publisher.checkpoint.weight_masks import WeightMasks, WeightMaskWriter
from publisher.weights.folder import StoredWeights
from tests.benchmarks.copy_speed import SIZES, alternate, show
from tests.benchmarks.random_models import random_llama


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "merge-speed")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--layers", type=int, default=SIZES["num_hidden_layers"])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = random_llama(options.work / "base", torch.bfloat16, **SIZES | {"num_hidden_layers": options.layers})
    adapter, masks = trained(base, options.work / "adapter"), masked(base, options.work / "masks.safetensors")
    sides: dict[str, Any] = {
        "cp": lambda output: subprocess.run(["cp", "-r", str(base), str(output / "copy")], check=True),
        "merge": lambda output: merge_adapter(base, adapter, output / "merged"),
        "masked": lambda output: merge_folder(adapter, output / "merged", masks, base),
    }
    found = alternate(sides, options.work, options.runs)
    show(found, sum(path.stat().st_size for path in base.glob("*.safetensors")))


def trained(base: Path, folder: Path) -> Path:
    """A LoRA of rank 16 on every linear layer."""
    if not folder.is_dir():
        model = AutoModelForCausalLM.from_pretrained(base)
        config = LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear", init_lora_weights=False)
        get_peft_model(model, config).save_pretrained(folder)
    return folder


def masked(base: Path, path: Path) -> WeightMasks:
    """2:4, of every matrix in the layers."""
    if not path.is_file():
        entries = StoredWeights(base).entries
        shapes = {
            name: (e.shape[0], e.shape[1]) for name, e in entries.items() if "layers" in name and len(e.shape) == 2
        }
        with WeightMaskWriter(path, shapes) as writer:
            for name, shape in shapes.items():
                writer.write(name, (torch.arange(shape[1]) % 4 < 2).expand(shape))
    return WeightMasks(path)


if __name__ == "__main__":
    main()

"""How peak memory of calibrate and prune grows with the number of layers at one width.

    python -m tests.benchmarks.layer_memory [--work FOLDER] [--layers 4 16] [--criterion taylor]

The target is less than 10 % from 4 layers to 16. Each model goes through `publisher build … --until prune` in a process
of its own.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.builds import build_until_prune
from tests.benchmarks.random_models import random_llama

SIZES: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
CALIBRATION = {"corpus": "text", "samples": 8, "sequence_length": 128}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "layer-memory")
    parser.add_argument("--layers", type=int, nargs=2, default=[4, 16])
    parser.add_argument("--criterion", choices=["taylor", "wanda", "magnitude", "random"], default="taylor")
    options = parser.parse_args()
    few, many = (peak(options.work, layers, options.criterion) for layers in options.layers)
    few_layers, many_layers = options.layers
    print(f"{options.criterion}: {few_layers} to {many_layers} layers {many / few - 1:+.1%} (target: below +10 %)")


def peak(work: Path, layers: int, criterion: str) -> int:
    """Bytes at the most while a model of so many layers is pruned."""
    base = random_llama(work / f"base-{layers}", torch.bfloat16, num_hidden_layers=layers, **SIZES)
    out = work / f"out-{layers}"
    shutil.rmtree(out, ignore_errors=True)
    pruning = {"criterion": criterion, "ratio": 0.5, "protect_first": 1, "protect_last": 1}
    if criterion in ("taylor", "wanda"):
        pruning["calibration"] = CALIBRATION
    cost = build_until_prune(base, out, pruning)
    shutil.rmtree(out)
    print(
        f"{layers:3} layers, {sum(f.stat().st_size for f in base.iterdir()) / 2**20:6,.0f} MiB of files: {cost}",
        flush=True,
    )
    return cost.peak


if __name__ == "__main__":
    main()

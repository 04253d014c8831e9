"""A model with LLaMA-2-70B's widths, four layers of it, pruned at 0.85 on a CPU: peak memory of every criterion.

    python -m tests.benchmarks.wide_model --work FOLDER [--criteria random magnitude taylor]

Needs 8 GB in FOLDER for the random bf16 weights, which stay there for the next time, and 2 GB for what is made of them.
Targets: 7 GB for Taylor with 8 samples of 128 tokens, 3 GB for random and magnitude (10⁹ bytes).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.builds import build_until_prune
from tests.benchmarks.random_models import WIDE, random_llama

TARGETS = {"random": 3e9, "magnitude": 3e9, "wanda": 7e9, "taylor": 7e9}
CALIBRATION = {"corpus": "text", "samples": 8, "sequence_length": 128}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--criteria", nargs="+", choices=TARGETS, default=["random", "magnitude", "taylor"])
    options = parser.parse_args()
    base = random_llama(options.work / "wide", torch.bfloat16, **WIDE)
    for criterion in options.criteria:
        pruning: dict[str, Any] = {"criterion": criterion, "ratio": 0.85, "protect_first": 0, "protect_last": 0}
        if criterion in ("taylor", "wanda"):
            pruning["calibration"] = CALIBRATION
        out = options.work / "out"
        shutil.rmtree(out, ignore_errors=True)
        cost = build_until_prune(base, out, pruning)
        shutil.rmtree(out)
        verdict = "met" if cost.peak < TARGETS[criterion] else "MISSED"
        print(
            f"{criterion:10} {cost} = {cost.peak / 1e9:.2f} GB, target {TARGETS[criterion] / 1e9:.0f} GB {verdict}",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Random and magnitude pruning beside `cp` of the same files, page cache warm.

    python -m tests.benchmarks.copy_speed [--work FOLDER] [--runs 5]

The target is 0.5 or more of cp's speed, in bytes of the base model per second. A run of ours is the stages calibrate
and prune (ratio 0.5, one layer protected at each end); runs alternate and medians count. Before each run the same side
runs once untimed, and its files are deleted: so each finds the same free memory. On a virtual machine it matters how
long ago that was, because freed memory goes back to the host after a while and has to be fetched again, which a side
pays for that does anything before it writes. Therefore all is measured twice, at once and 5 seconds after deleting.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from publisher.recipe import Recipe
from tests.benchmarks.random_models import random_llama
from worker.context import RecordingContext
from worker.request import BaseModelSource, BuildRequest
from worker.stages import calibrate
from worker.stages.inputs import CalibrateInputs, PruneInputs
from worker.stages.prune import stage as prune

SIZES: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 12,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}

#: seconds between the freeing of memory and a timed run
PAUSES = (0, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "copy-speed")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(2)
    base = random_llama(options.work / "base", torch.bfloat16, **SIZES)
    sides = {
        "cp": lambda output: subprocess.run(["cp", "-r", str(base), str(output / "copy")], check=True),
        "random": lambda output: prune_with("random", base, output),
        "magnitude": lambda output: prune_with("magnitude", base, output),
    }
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    for pause in PAUSES:
        found = alternate(sides, options.work, options.runs, pause)
        print(f"{pause} s after memory was freed")
        show(found, size)


def show(found: dict[str, list[float]], size: int) -> None:
    """`found`: seconds of each side; `size`: bytes of the base model."""
    medians = {name: statistics.median(times) for name, times in found.items()}
    for name, median in medians.items():
        speed = f"{size / median / 2**20:6,.0f} MiB/s, {medians['cp'] / median:.2f} of cp's speed"
        print(f"{name:10} {median:5.2f} s ({min(found[name]):.2f} to {max(found[name]):.2f}), {speed}")


def alternate(
    sides: Mapping[str, Callable[[Path], object]], work: Path, runs: int, pause: float = 0
) -> dict[str, list[float]]:
    """Seconds of each side. Before each timed run the same side runs once untimed, so that each finds the same free
    memory, and `pause` seconds pass."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, side in sides.items():
            seconds(side, work)
            time.sleep(pause)
            found[name].append(seconds(side, work))
    return found


def seconds(side: Callable[[Path], object], work: Path) -> float:
    output = work / "output"
    output.mkdir()
    os.sync()  # or what the last side wrote slows this one down, when the kernel has too much of it to write
    started = time.perf_counter()
    side(output)
    taken = time.perf_counter() - started
    shutil.rmtree(output)
    return taken


def prune_with(criterion: str, base: Path, output: Path) -> None:
    pruning = {"criterion": criterion, "ratio": 0.5, "protect_first": 1, "protect_last": 1}
    request = BuildRequest(BaseModelSource(str(base), "", base), Recipe.model_validate({"pruning": pruning}), {})
    for name in ("calibrate", "prune"):
        (output / name).mkdir()
    calibrate.run(request, CalibrateInputs(base), output / "calibrate", RecordingContext())
    prune.run(request, PruneInputs(base, output / "calibrate"), output / "prune", RecordingContext())


if __name__ == "__main__":
    main()

"""Five ratios that share one calibration beside a single variant, up to the prune stage.

    python -m tests.benchmarks.sweep BASE CORPUS [--work FOLDER] [--runs 3]

BASE is a model's folder, CORPUS a text file or folder. The target is that the sweep takes at most 1.5 × as long. Each
side starts with an empty store of stages.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch

from publisher.base_model.facts import inspect_folder
from publisher.corpus.source import CorpusSource
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from worker.context import RecordingContext
from worker.request import BaseModelSource, BuildRequest
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore

RATIOS = (0.35, 0.45, 0.55, 0.65, 0.75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "sweep")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(2)
    found: dict[int, list[float]] = {1: [], len(RATIOS): []}
    for _ in range(options.runs):
        for count, times in found.items():
            times.append(seconds(options.base, options.corpus, RATIOS[-count:], options.work / "stages"))
            print(f"{count} of {len(RATIOS)} ratios: {times[-1]:.1f} s", flush=True)
    one, all_of_them = (statistics.median(times) for times in found.values())
    print(f"medians: one {one:.1f} s, all {all_of_them:.1f} s, {all_of_them / one:.2f} × (target: at most 1.5)")


def seconds(base: Path, corpus: Path, ratios: tuple[float, ...], stages: Path) -> float:
    shutil.rmtree(stages, ignore_errors=True)
    started = time.perf_counter()
    for ratio in ratios:
        run_pipeline(request(base, corpus, ratio), StageStore(stages), lambda stage: RecordingContext(), Stage.PRUNE)
    return time.perf_counter() - started


def request(base: Path, corpus: Path, ratio: float) -> BuildRequest:
    pruning = {"ratio": ratio, "calibration": {"corpus": "text"}}
    source = BaseModelSource(str(base), inspect_folder(base).revision, base)
    return BuildRequest(
        source, Recipe.model_validate({"pruning": pruning}), {"text": CorpusSource(name="text", path=corpus)}
    )


if __name__ == "__main__":
    main()

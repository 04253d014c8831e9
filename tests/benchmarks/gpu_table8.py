"""The paper's Table 8: LoRA on a 13B of which 0.65 is pruned, beside LoRA on the 7B and the 13B.

    python -m tests.benchmarks.gpu_table8 --work FOLDER --out FILE [--device cuda] [--samples 128] [--tiny]

bf16 with random weights of LLaMA-2's widths, length 512, batch 128 in micro-batches of 4, no activation checkpointing
(the paper's 51,661 MiB for the 13B are its weights, 26 GB, and what their activations take). Fewer than the paper's
1,024 samples are run, and the latency scaled; throughput is of the steps alone. Rounds alternate the sides, medians
count.

The paper, on an A100: 29,799 / 30,517 / 51,661 MiB; 147.86 / 134.27 / 206.07 s; 6.93 / 7.63 / 4.97 samples a second.
Goals: peak at most 0.577 of the 13B's, throughput at least 1.39 times the 13B's.

The least time for 1,024 samples, from the arithmetic alone (4 operations a weight and token at 989 TFLOP/s): 13 s
pruned, 14 s the 7B, 28 s the 13B.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tests.benchmarks.gpu_lora import MIB, Setup, Trained, device_name, train_lora, write_results
from tests.benchmarks.gpu_models import LLAMA_2_7B, LLAMA_2_13B, TINY, geometry_of, widths_at, write_random

RATIO, MEMORY_GOAL, SPEED_GOAL = 0.65, 0.577, 1.39
SAMPLES, BATCH, MICRO, LENGTH = 1024, 128, 4, 512
PEAK_FLOPS, OPERATIONS = 989e12, 4
PRUNED, SMALLER, FULL = "13B LoRAM-Stru 0.65", "7B LoRA", "13B LoRA"


def main() -> None:
    options = _options()
    length, batch, micro = (32, 8, 4) if options.tiny else (LENGTH, BATCH, MICRO)
    models = _models(options)
    print(f"{device_name(options.device)}, torch {torch.__version__}; r=8, bf16, {batch} × {length} tokens a step")
    found: dict[str, list[Trained]] = {name: [] for name in models}
    rows: list[dict[str, Any]] = []
    for _ in range(options.rounds):
        for name, folder in models.items():
            steps = max(1, options.samples // batch)
            setup = Setup(folder, options.device, length, micro, batch // micro, steps, checkpointing=False)
            found[name].append(train_lora(setup))
            rows.append({"model": name} | asdict(found[name][-1]))
            write_results(options.out, "table8", options.device, rows)
    _report(found, batch, length)


def _models(options: argparse.Namespace) -> dict[str, str]:
    large, small = (TINY, TINY | {"num_hidden_layers": 4}) if options.tiny else (LLAMA_2_13B, LLAMA_2_7B)
    widths = widths_at(geometry_of(large), RATIO)
    asked = {PRUNED: (large, widths), SMALLER: (small, None), FULL: (large, None)}
    folders = {name: options.work / name.replace(" ", "-") for name in asked}
    for name, (config, kept) in asked.items():
        write_random(folders[name], config, options.device, widths=kept)
    return {name: str(folder) for name, folder in folders.items()}


def _report(found: dict[str, list[Trained]], batch: int, length: int) -> None:
    print(f"{'':20} {'weights':>15} {'peak MiB':>9} {f'{SAMPLES} samples s':>15} {'samples/s':>10} {'floor s':>8}")
    peaks, speeds = {}, {}
    for name, runs in found.items():
        if runs[0].refused:
            print(f"{name:20} {runs[0].refused}")
            continue
        peaks[name] = median(run.peak for run in runs)
        speeds[name] = batch / median(run.seconds for run in runs)
        floor = OPERATIONS * runs[0].parameters * SAMPLES * length / PEAK_FLOPS
        print(
            f"{name:20} {runs[0].parameters:15,} {peaks[name] / MIB:9,.0f} {SAMPLES / speeds[name]:15.1f} "
            f"{speeds[name]:10.2f} {floor:8.2f}"
        )
    if PRUNED in peaks and FULL in peaks:
        memory, speed = peaks[PRUNED] / peaks[FULL], speeds[PRUNED] / speeds[FULL]
        print(f"of the 13B's peak {memory:.3f} (goal ≤ {MEMORY_GOAL}), of its throughput {speed:.2f} (≥ {SPEED_GOAL})")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--samples", type=int, default=BATCH)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()

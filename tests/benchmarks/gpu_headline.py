"""LoRA on a 70B of which 0.85 is pruned, in NF4: does it fit 20 GiB? Beside it QLoRA of the whole 70B.

    python -m tests.benchmarks.gpu_headline --work FOLDER --out FILE [--device cuda] [--tiny] [--whole]

Random weights of LLaMA-2-70B's and 3.1-70B's widths, each layer with a width of its own as scope global leaves them;
r=8 on all linear layers, batch 1, activation checkpointing, 512 and 2,048 tokens. The paper: "70B on a 20G GPU".
Disk: 11 GiB a pruned model; --whole 37 GiB more.

The least time that a step could take, from the arithmetic alone: forward, backward without the frozen weights'
gradients and the forward pass again are 6 operations a weight and token; at 989 TFLOP/s dense bf16 (H100, H200) 512
tokens of 16.3 · 10⁹ weights take 0.05 s, of 69 · 10⁹ 0.21 s. Reading 8 GiB of NF4 three times at 4 TB/s takes 0.006 s.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.gpu_lora import MIB, Setup, Trained, device_name, train_lora, write_results
from tests.benchmarks.gpu_models import LLAMA_2_70B, LLAMA_31_70B, TINY, geometry_of, varied, widths_at, write_random

RATIO, GOAL = 0.85, 20 * 2**30
PEAK_FLOPS = 989e12
OPERATIONS = 6


def main() -> None:
    options = _options()
    models = {"tiny": TINY} if options.tiny else {"LLaMA-2-70B": LLAMA_2_70B, "LLaMA-3.1-70B": LLAMA_31_70B}
    lengths = (32, 128) if options.tiny else (512, 2048)
    rows: list[dict[str, Any]] = []
    print(f"{device_name(options.device)}, torch {torch.__version__}; LoRA r=8 on all linear layers, NF4, batch 1")
    print(f"{'model':28} {'tokens':>6} {'weights':>15} {'peak MiB':>9} {'tokens/s':>9} {'step s':>7} {'floor s':>8}")
    for name, config in models.items():
        for whole in (False, True) if options.whole else (False,):
            widths = None if whole else varied(geometry_of(config), widths_at(geometry_of(config), RATIO))
            folder = options.work / f"{name}-{'whole' if whole else 'pruned'}"
            write_random(folder, config, options.device, widths=widths, four_bit=True)
            for length in lengths:
                trained = train_lora(Setup(str(folder), options.device, length, steps=options.steps))
                rows.append({"model": name, "whole": whole, "length": length} | asdict(trained))
                print(_line(f"{name} {'whole' if whole else 'at 0.85'}", length, trained), flush=True)
                write_results(options.out, "headline", options.device, rows)
    if not options.tiny:
        pruned = [row for row in rows if not row["whole"] and not row["refused"]]
        met = bool(pruned) and all(row["peak"] < GOAL for row in pruned)
        print(f"goal, peak under 20 GiB: {'met' if met else 'MISSED'}")


def _line(name: str, length: int, trained: Trained) -> str:
    if trained.refused:
        return f"{name:28} {length:6} {trained.refused}"
    floor = OPERATIONS * trained.parameters * length / PEAK_FLOPS
    return (
        f"{name:28} {length:6} {trained.parameters:15,} {trained.peak / MIB:9,.0f} {trained.tokens_per_second:9,.0f} "
        f"{trained.seconds:7.3f} {floor:8.3f}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--whole", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()

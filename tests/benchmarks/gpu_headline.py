"""LoRA on a 70B of which 0.85 is pruned, in NF4: does it fit 20 GiB? Beside it QLoRA of the whole 70B.

    python -m tests.benchmarks.gpu_headline --work FOLDER --out FILE [--device cuda] [--tiny] [--whole]
        [--predicted predicted.json]

Random weights of LLaMA-2-70B's and 3.1-70B's widths, each layer with a width of its own as scope global leaves them;
r=8 on all linear layers, batch 1, activation checkpointing, 512 and 2,048 tokens. The paper: "70B on a 20G GPU".
Disk: 11 GiB; with --whole 37, since each model's files are deleted when it is measured.

The least time that a step could take on an H200 (printed as floor; gpu_cases.py has how): pruned 0.05 s by 512 tokens,
0.20 s by 2,048, whole 0.21 and 0.84 s. Arithmetic: weights in NF4, read three times, would take 0.005 s and 0.02 s.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from tests.benchmarks.gpu_cases import Case
from tests.benchmarks.gpu_lora import Trained, train_lora
from tests.benchmarks.gpu_models import LLAMA_2_70B, LLAMA_31_70B, TINY, geometry_of, varied, widths_at
from tests.benchmarks.gpu_report import Goals, in_mib, parser, peak_heading, predictions, title, write_results

RATIO, GOAL_GIB = 0.85, 20


def cases(tiny: bool) -> list[Case]:
    """Pruned ones first."""
    models = {"tiny": TINY} if tiny else {"LLaMA-2-70B": LLAMA_2_70B, "LLaMA-3.1-70B": LLAMA_31_70B}
    found = []
    for whole in (False, True):
        for name, config in models.items():
            geometry = geometry_of(config)
            widths = None if whole else varied(geometry, widths_at(geometry, RATIO))
            model = f"{name} {'whole' if whole else f'at {RATIO}'}"
            for length in (32, 128) if tiny else (512, 2048):
                found.append(Case("headline", f"{model}, {length} tokens", model, config, widths, length))
    return found


def main() -> None:
    options = _options()
    predicted = predictions(options.predicted, tiny=options.tiny)
    rows: list[dict[str, Any]] = []
    print(f"{title(options.device, tiny=options.tiny)}; LoRA r=8 on all linear layers, NF4, batch 1")
    print(_heading(options.device), flush=True)
    asked = [case for case in cases(options.tiny) if case.widths is not None or options.whole]
    for case, after in zip_longest(asked, asked[1:]):
        trained = train_lora(case.written(options.work, options.device, options.steps))
        guess = predicted.peak("headline", case.name)
        rows.append({"model": case.name, "whole": case.widths is None, "predicted": guess} | asdict(trained))
        print(_line(case, trained, guess), flush=True)
        write_results(options.out, "headline", options.device, rows, tiny=options.tiny)
        if after is None or after.model != case.model:
            shutil.rmtree(case.folder(options.work))
    _judge(rows, Goals(options.tiny))


def _judge(rows: list[dict[str, Any]], goals: Goals) -> None:
    pruned = [row for row in rows if not row["whole"]]
    if any(row["refused"] for row in pruned):
        goals.missing("peak of every pruned 70B")
    else:
        goals.say("highest peak of the pruned, GiB", max(row["peak"] for row in pruned) / 2**30, most=GOAL_GIB)


def _heading(device: str) -> str:
    return (
        f"{'':34} {'weights':>15} {peak_heading(device):>11} {'predicted':>9} {'tokens/s':>9} {'step s':>7} "
        f"{'floor s':>8}"
    )


def _line(case: Case, trained: Trained, predicted: int | None) -> str:
    if trained.refused:
        return f"{case.name:34} {trained.refused}"
    return (
        f"{case.name:34} {trained.parameters:15,} {in_mib(trained.peak):>11} {in_mib(predicted):>9} "
        f"{trained.tokens_per_second:9,.0f} {trained.seconds:7.3f} {case.floor:8.3f}"
    )


def _options() -> argparse.Namespace:
    options = parser(__doc__, predicted=True)
    options.add_argument("--steps", type=int, default=8)
    options.add_argument("--whole", action="store_true")
    return options.parse_args()


if __name__ == "__main__":
    main()

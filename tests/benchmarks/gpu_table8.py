"""The paper's Table 8: LoRA on a 13B of which 0.65 is pruned, beside LoRA on the 7B and the 13B.

    python -m tests.benchmarks.gpu_table8 --work FOLDER --out FILE [--device cuda] [--samples 128] [--tiny]
        [--predicted predicted.json]

bf16 with random weights of LLaMA-2's widths, length 512, batch 128 in micro-batches of 4, no activation checkpointing
(the paper's 51,661 MiB for the 13B are its weights, 26 GB, and what their activations take). Each once as PEFT has it,
which casts what every adapter reads to fp32 and keeps it for the backward pass, and once under bf16 autocast, as a
Trainer with `bf16=True` and `publisher train` do. Fewer than the paper's 1,024 samples are run, and the latency scaled;
throughput is of the steps alone. Rounds alternate the sides; each run is printed as it ends, medians count.

The paper, on an A100: 29,799 / 30,517 / 51,661 MiB; 147.86 / 134.27 / 206.07 s; 6.93 / 7.63 / 4.97 samples a second.
Goals: peak at most 0.577 of the 13B's, throughput at least 1.39 times the 13B's.

The least time of a step on an H200 times 8, from the arithmetic (gpu_cases.py): 12 s pruned, 14 s the 7B, 28 s the 13B.
"""

from __future__ import annotations

import argparse
from functools import partial
from statistics import median

from tests.benchmarks.gpu_cases import Case
from tests.benchmarks.gpu_lora import Trained
from tests.benchmarks.gpu_models import LLAMA_2_7B, LLAMA_2_13B, TINY, geometry_of, widths_at
from tests.benchmarks.gpu_report import (
    Goals,
    Predictions,
    in_mib,
    parser,
    peak_heading,
    predictions,
    title,
)
from tests.benchmarks.gpu_rounds import Found, alternated, refused

RATIO, MEMORY_GOAL, SPEED_GOAL = 0.65, 0.577, 1.39
SAMPLES, BATCH, MICRO, LENGTH = 1024, 128, 4, 512
PRUNED, SMALLER, FULL = "13B LoRAM-Stru 0.65", "7B LoRA", "13B LoRA"
KINDS = {"": False, ", autocast": True}


def cases(tiny: bool) -> list[Case]:
    large, small = (TINY, TINY | {"num_hidden_layers": 4}) if tiny else (LLAMA_2_13B, LLAMA_2_7B)
    length, batch, micro = (32, 8, 4) if tiny else (LENGTH, BATCH, MICRO)
    models = {PRUNED: (large, widths_at(geometry_of(large), RATIO)), SMALLER: (small, None), FULL: (large, None)}
    return [
        Case(
            "table8",
            f"{model}{kind}",
            model,
            config,
            widths,
            length,
            micro,
            batch // micro,
            four_bit=False,
            checkpointing=False,
            autocast=autocast,
        )
        for kind, autocast in KINDS.items()
        for model, (config, widths) in models.items()
    ]


def main() -> None:
    options = _options()
    asked, predicted = cases(options.tiny), predictions(options.predicted, tiny=options.tiny)
    print(f"{title(options.device, tiny=options.tiny)}; r=8, bf16, {asked[0].tokens} tokens a step")
    steps = max(1, options.samples // (asked[0].micro * asked[0].micros))  # every case has the same batch
    heading, line = _heading(options.device), partial(_line, predicted)
    found = alternated(asked, options, predicted, steps=steps, heading=heading, line=line)
    for kind in KINDS:
        _judge(asked, found, kind, Goals(options.tiny))


def _heading(device: str) -> str:
    return (
        f"{'':30} {'weights':>15} {peak_heading(device):>11} {'predicted':>9} {f'{SAMPLES} samples s':>15} "
        f"{'floor s':>8} {'samples/s':>10}"
    )


def _line(predicted: Predictions, case: Case, runs: list[Trained]) -> str:
    """A row of the table, of the runs' medians."""
    if why := refused(runs):
        return f"{case.name:30} {why}"
    peak, speed = _figures(case, runs)
    return (
        f"{case.name:30} {runs[0].parameters:15,} {in_mib(peak):>11} {in_mib(predicted.peak('table8', case.name)):>9} "
        f"{SAMPLES / speed:15.1f} {case.floor * SAMPLES / (case.micro * case.micros):8.2f} {speed:10.2f}"
    )


def _figures(case: Case, runs: list[Trained]) -> tuple[float, float]:
    """Bytes at the peak, and samples a second."""
    return median(run.peak for run in runs), case.micro * case.micros / median(run.seconds for run in runs)


def _judge(asked: list[Case], found: Found, kind: str, goals: Goals) -> None:
    pruned, full = f"{PRUNED}{kind}", f"{FULL}{kind}"
    if refused(found[pruned]) or refused(found[full]):
        goals.missing(f"{pruned} beside {full}")
        return
    figures = {case.name: _figures(case, found[case.name]) for case in asked if case.name in (pruned, full)}
    (peak, speed), (full_peak, full_speed) = figures[pruned], figures[full]
    goals.say(f"peak of {pruned}, of the 13B's", peak / full_peak, most=MEMORY_GOAL)
    goals.say(f"throughput of {pruned}, of the 13B's", speed / full_speed, least=SPEED_GOAL)


def _options() -> argparse.Namespace:
    options = parser(__doc__, predicted=True)
    options.add_argument("--samples", type=int, default=BATCH)
    options.add_argument("--rounds", type=int, default=3)
    return options.parse_args()


if __name__ == "__main__":
    main()

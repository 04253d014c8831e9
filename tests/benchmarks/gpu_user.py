"""The downstream user's side: LoRA on a pruned checkpoint in NF4 beside QLoRA of its base, and what widths cost.

    python -m tests.benchmarks.gpu_user --work FOLDER --out FILE [--device cuda] [--tiny] [--predicted predicted.json]

LLaMA-2-7B's widths pruned at 0.5: each layer with a width of its own, as scope global leaves them, and those rounded to
multiples of 64 and 128, as `round_to` does; length 512, micro-batch 4, activation checkpointing. Goals: tokens per
second at least base / pruned parameters times the base's, peak at most pruned / base parameters + 10 % of the base's.

First, whether the kernels read 4-bit rows rightly whose width is no multiple of 64: the largest difference from a
product with the same weight unpacked, relative to its largest value, for one token and many. On a CPU (AVX-512,
bitsandbytes 0.50.2) all were within 0.4 %; its path for inference there, which fails at such widths, is not tried.
Then a row for each training as it ends; rounds alternate the sides, medians count.

The least time of a step of 2,048 tokens on an H200, from the arithmetic (gpu_cases.py): 0.08 s of the base, 0.05 s at
0.5; the weights in NF4, read three times, take 0.002 s.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from torch.nn import functional

from publisher.architecture.geometry import LayerWidths
from tests.benchmarks.gpu_cases import Case
from tests.benchmarks.gpu_lora import Trained
from tests.benchmarks.gpu_models import LLAMA_2_7B, TINY, geometry_of, varied, widths_at
from tests.benchmarks.gpu_report import (
    Goals,
    Predictions,
    in_mib,
    parser,
    peak_heading,
    predictions,
    title,
    write_results,
)
from tests.benchmarks.gpu_rounds import Found, alternated, refused

RATIO = 0.5
WIDTHS = (64, 96, 100, 537, 1533, 4096, 5471)
BASE = "base, QLoRA"
#: a product in bf16 differs by less, of its largest value; what reads the wrong weights, by far more
ROUNDING = 0.02


def cases(tiny: bool) -> list[Case]:
    """The base first."""
    config = TINY | {"num_hidden_layers": 12} if tiny else LLAMA_2_7B
    length, micro = (32, 2) if tiny else (512, 4)
    geometry = geometry_of(config)
    uneven = varied(geometry, widths_at(geometry, RATIO))
    asked: dict[str, tuple[LayerWidths, ...] | None] = {BASE: None, f"at {RATIO}": uneven}
    asked |= {f"at {RATIO}, round_to {number}": _rounded(uneven, number) for number in (64, 128)}
    return [Case("user", name, name, config, widths, length, micro) for name, widths in asked.items()]


def _rounded(widths: tuple[LayerWidths, ...], number: int) -> tuple[LayerWidths, ...]:
    return tuple(replace(width, neurons=max(1, round(width.neurons / number)) * number) for width in widths)


def main() -> None:
    options = _options()
    asked, predicted = cases(options.tiny), predictions(options.predicted, tiny=options.tiny)
    print(title(options.device, tiny=options.tiny), flush=True)
    differences = _differences(options.device)
    _say_differences(differences)
    rows: list[dict[str, Any]] = [{"difference": each} for each in differences]
    write_results(options.out, "user", options.device, rows, tiny=options.tiny)
    heading, line = _heading(options.device), partial(_line, predicted)
    found = alternated(asked, options, predicted, steps=options.steps, heading=heading, line=line, before=rows)
    _judge(found, Goals(options.tiny))


def _differences(device: str) -> list[dict[str, Any]]:
    """For each width and number of tokens."""
    generator = torch.Generator(device).manual_seed(0)
    found = []
    for width in WIDTHS:
        weight = torch.randn(192, width, generator=generator, device=device, dtype=torch.bfloat16)
        values, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        layer = Linear4bit(width, 192, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
        layer.weight = Params4bit(weight.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True)
        layer = layer.to(device)
        for tokens in (1, 64):
            states = torch.randn(tokens, width, generator=generator, device=device, dtype=torch.bfloat16)
            with torch.no_grad():
                exact = functional.linear(states.float(), dequantize_4bit(values, state).float())
                difference = (layer(states).float() - exact).abs().max() / exact.abs().max()
            found.append({"width": width, "tokens": tokens, "of_largest": float(difference)})
    return found


def _say_differences(found: list[dict[str, Any]]) -> None:
    print("largest difference of a 4-bit product, of its largest value:")
    for each in found:
        wrong = "" if each["of_largest"] < ROUNDING else "  WRONG"
        print(f"  width {each['width']:5}, tokens {each['tokens']:3}: {each['of_largest']:.1e}{wrong}")
    wrongs = sum(not each["of_largest"] < ROUNDING for each in found)  # nan is wrong
    verdict = f"{wrongs} of {len(found)} are WRONG" if wrongs else "4-bit rows of every width are read rightly"
    print(f"{'not all' if wrongs else 'all'} within {100 * ROUNDING:g} %: {verdict}", flush=True)


def _heading(device: str) -> str:
    return (
        f"{'':24} {'weights':>14} {peak_heading(device):>11} {'predicted':>9} {'tokens/s':>9} {'step s':>7} "
        f"{'floor s':>8}"
    )


def _line(predicted: Predictions, case: Case, runs: list[Trained]) -> str:
    """A row of the table, of the runs' medians."""
    if why := refused(runs):
        return f"{case.name:24} {why}"
    return (
        f"{case.name:24} {runs[0].parameters:14,} {in_mib(_peak(runs)):>11} "
        f"{in_mib(predicted.peak('user', case.name)):>9} "
        f"{_speed(runs):9,.0f} {case.tokens / _speed(runs):7.3f} {case.floor:8.3f}"
    )


def _judge(found: Found, goals: Goals) -> None:
    base = found[BASE]
    for name, runs in found.items():
        if name == BASE:
            continue
        if refused(base) or refused(runs):
            goals.missing(f"{name} beside the base")
            continue
        share = runs[0].parameters / base[0].parameters
        goals.say(f"peak {name}, of the base's", _peak(runs) / _peak(base), most=round(share + 0.1, 3))
        goals.say(f"tokens a second {name}, of the base's", _speed(runs) / _speed(base), least=round(1 / share, 3))


def _peak(runs: list[Trained]) -> float:
    return median(run.peak for run in runs)


def _speed(runs: list[Trained]) -> float:
    return median(run.tokens_per_second for run in runs)


def _options() -> argparse.Namespace:
    options = parser(__doc__, predicted=True)
    options.add_argument("--steps", type=int, default=8)
    options.add_argument("--rounds", type=int, default=3)
    return options.parse_args()


if __name__ == "__main__":
    main()

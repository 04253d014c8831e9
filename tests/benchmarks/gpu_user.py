"""The downstream user's side: LoRA on a pruned checkpoint in NF4 beside QLoRA of its base, and what widths cost.

    python -m tests.benchmarks.gpu_user --work FOLDER --out FILE [--device cuda] [--tiny]

LLaMA-2-7B's widths pruned at 0.5: as they come out, and with `round_to` 64 and 128; length 512, micro-batch 4,
activation checkpointing. Goals: tokens per second at least base / pruned parameters times the base's, peak at most
pruned / base parameters + 10 % of the base's.

First, whether the kernels read 4-bit rows rightly whose width is no multiple of 64, which bitsandbytes' for CPUs do
not: the largest difference from a product with the same weight unpacked, relative to its largest value, for one token
(inference) and many (training).
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from torch.nn import functional

from tests.benchmarks.gpu_lora import MIB, Setup, Trained, device_name, train_lora, write_results
from tests.benchmarks.gpu_models import LLAMA_2_7B, TINY, geometry_of, widths_at, write_random

RATIO = 0.5
WIDTHS = (64, 96, 100, 537, 1533, 4096, 5471)
BASE = "base, QLoRA"


def main() -> None:
    options = _options()
    print(f"{device_name(options.device)}, torch {torch.__version__}")
    rows: list[dict[str, Any]] = [{"difference": each} for each in _differences(options.device)]
    write_results(options.out, "user", options.device, rows)
    length, micro = (32, 2) if options.tiny else (512, 4)
    models = _models(options)
    found: dict[str, list[Trained]] = {name: [] for name in models}
    for _ in range(options.rounds):
        for name, folder in models.items():
            found[name].append(train_lora(Setup(folder, options.device, length, micro, steps=options.steps)))
            rows.append({"model": name} | asdict(found[name][-1]))
            write_results(options.out, "user", options.device, rows)
    _report(found)


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
    print("largest difference of a 4-bit product, of its largest value:")
    for each in found:
        wrong = "" if each["of_largest"] < 0.02 else "  WRONG"
        print(f"  width {each['width']:5}, tokens {each['tokens']:3}: {each['of_largest']:.1e}{wrong}")
    return found


def _models(options: argparse.Namespace) -> dict[str, str]:
    config = TINY | {"num_hidden_layers": 12} if options.tiny else LLAMA_2_7B
    geometry = geometry_of(config)
    asked: dict[str, Any] = {BASE: None, f"at {RATIO}": widths_at(geometry, RATIO)}
    asked |= {f"at {RATIO}, round_to {number}": widths_at(geometry, RATIO, round_to=number) for number in (64, 128)}
    folders = {name: options.work / name.replace(" ", "-").replace(",", "") for name in asked}
    for name, widths in asked.items():
        write_random(folders[name], config, options.device, widths=widths, four_bit=True)
    return {name: str(folder) for name, folder in folders.items()}


def _report(found: dict[str, list[Trained]]) -> None:
    base = found[BASE]
    if base[0].refused:
        print(f"{BASE}: {base[0].refused}")
        return
    base_peak, base_speed = _peak(base), _speed(base)
    print(f"{'':24} {'weights':>14} {'peak MiB':>9} {'tokens/s':>9} {'peak':>6} {'≤':>6} {'speed':>6} {'≥':>6}")
    for name, runs in found.items():
        share = runs[0].parameters / base[0].parameters
        print(
            f"{name:24} {runs[0].parameters:14,} {_peak(runs) / MIB:9,.0f} {_speed(runs):9,.0f} "
            f"{_peak(runs) / base_peak:6.2f} {share + 0.1:6.2f} {_speed(runs) / base_speed:6.2f} {1 / share:6.2f}"
        )


def _peak(runs: list[Trained]) -> float:
    return median(run.peak for run in runs)


def _speed(runs: list[Trained]) -> float:
    return median(run.tokens_per_second for run in runs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What the benchmarks for a GPU share: options, an H200's floors, goals, predicted figures, results as they come."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MIB = 2**20
#: An H200's by its data sheet: dense bf16 operations, and bytes of memory, a second.
PEAK_FLOPS, BANDWIDTH = 989e12, 4.8e12


def parser(doc: str | None) -> argparse.ArgumentParser:
    """`--work`, `--out`, `--device`, `--predicted` and `--tiny`."""
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--work", type=Path, required=True)
    found.add_argument("--out", type=Path)
    found.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    found.add_argument("--predicted", type=Path, help="what gpu_predicted wrote: its figures are printed beside")
    found.add_argument("--tiny", action="store_true", help="a thousandth of the work, for a machine without a GPU")
    return found


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"


def floor(operations: float, moved: float) -> float:
    """Seconds that an H200 needs at the least: for its bf16 operations or for the bytes moved, whichever is longer."""
    return max(operations / PEAK_FLOPS, moved / BANDWIDTH)


@dataclass(frozen=True)
class Goals:
    """Says of each goal whether it was met; of a tiny model only that the figure means nothing."""

    tiny: bool

    def say(self, what: str, found: float, most: float | None = None, least: float | None = None) -> None:
        """`found` is to be at most `most`, or at least `least`."""
        asked = f"≤ {most:g}" if most is not None else f"≥ {least:g}"
        met = (most is None or found <= most) and (least is None or found >= least)
        verdict = "met" if met else "MISSED"
        if self.tiny:
            verdict = "of a tiny model, says nothing about the goal"
        print(f"goal: {what} {found:.3f} ({asked}): {verdict}", flush=True)

    def missing(self, what: str) -> None:
        """A goal whose figure is not there."""
        print(f"goal: {what}: no figure", flush=True)


def predictions(path: Path | None) -> dict[tuple[str, str], dict[str, Any]]:
    """(benchmark, row) → what gpu_predicted found of it; nothing without a file."""
    if path is None:
        return {}
    return {(row["benchmark"], row["name"]): row for row in json.loads(path.read_text())["rows"]}


def write_results(path: Path | None, benchmark: str, device: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """As they come: a machine that is taken away leaves what was measured until then."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {"benchmark": benchmark, "device": device_name(device), "torch": torch.__version__, "rows": rows}
        path.write_text(json.dumps(told, indent=2) + "\n")

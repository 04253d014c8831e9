"""What the benchmarks for a GPU share: options, an H200's floors, goals, predicted figures, results as they come."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

MIB = 2**20
#: An H200's by its data sheet: dense bf16 operations, and bytes of memory, a second.
PEAK_FLOPS, BANDWIDTH = 989e12, 4.8e12


#: what is said of figures that `--tiny` made
TINY_SAYS = "of a tiny model: figures mean nothing, only that it runs"


def parser(doc: str | None, *, predicted: bool = False) -> argparse.ArgumentParser:
    """`--work`, `--out`, `--device`, `--tiny`, and `--predicted` for those that print it."""
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--work", type=Path, required=True)
    found.add_argument("--out", type=Path)
    add_device(found)
    if predicted:
        found.add_argument("--predicted", type=Path, help="what gpu_predicted wrote: its figures are printed beside")
    found.add_argument("--tiny", action="store_true", help="a thousandth of the work, for a machine without a GPU")
    return found


def add_device(options: argparse.ArgumentParser) -> None:
    options.add_argument("--device", type=usable, default="cuda" if torch.cuda.is_available() else "cpu")


def usable(device: str) -> str:
    """`device`, if PyTorch has it here; else one sentence, and exit code 2."""
    try:
        asked = torch.device(device)
    except RuntimeError:
        refuse(f"{device!r} is no device: ask for cpu or cuda.")
    if asked.type not in ("cpu", "cuda"):
        refuse(f"Nothing is measured on {device}: ask for cpu or cuda.")
    if asked.type == "cuda" and not torch.cuda.is_available():
        way_out = "make clean; make setup TORCH='torch>=2.11' gets a CUDA build"
        refuse(f"PyTorch sees no CUDA device. With a GPU here: {way_out}. Without one: --device cpu.")
    if asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count():
        refuse(f"There is no {device}: PyTorch sees {torch.cuda.device_count()}.")
    return device


def refuse(sentence: str) -> NoReturn:
    """Said before anything runs."""
    print(sentence, file=sys.stderr, flush=True)
    sys.exit(2)


def title(device: str, *, tiny: bool) -> str:
    """What the first line of every table begins with."""
    return f"{device_name(device)}, torch {torch.__version__}" + (f"; {TINY_SAYS}" if tiny else "")


def peak_heading(device: str) -> str:
    """On a GPU peaks are the allocator's, on a CPU all that the process holds, libraries and all."""
    return "peak MiB" if device.startswith("cuda") else "process MiB"


def in_mib(size: float | None) -> str:
    return "–" if size is None else f"{size / MIB:,.0f}"


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"


def floor(operations: float, moved: float) -> float:
    """Seconds that an H200 needs at the least: for its bf16 operations or for the bytes moved, whichever is longer."""
    return max(operations / PEAK_FLOPS, moved / BANDWIDTH)


@dataclass(frozen=True)
class Goals:
    """Says of each goal whether it was met; of a tiny model only that the figure means nothing."""

    tiny: bool

    def say(
        self,
        what: str,
        found: float,
        most: float | None = None,
        least: float | None = None,
        possible: float | None = None,
    ) -> None:
        """`found` is to be at most `most`, or at least `least`. `possible`: less than that the arithmetic rules out."""
        asked = f"≤ {most:g}" if most is not None else f"≥ {least:g}"
        if most is not None and possible is not None and possible > most:
            asked += f"; by the arithmetic at least {possible:.1f}"
        met = (most is None or found <= most) and (least is None or found >= least)
        verdict = "met" if met else "MISSED"
        if self.tiny:
            verdict = "of a tiny model, says nothing about the goal"
        print(f"goal: {what} {found:.3f} ({asked}): {verdict}", flush=True)

    def missing(self, what: str) -> None:
        """A goal whose figure is not there."""
        print(f"goal: {what}: no figure", flush=True)


@dataclass(frozen=True)
class Predictions:
    """Bytes at the peak by benchmark and row, as gpu_predicted found them."""

    peaks: Mapping[tuple[str, str], int]

    def peak(self, benchmark: str, name: str) -> int | None:
        return self.peaks.get((benchmark, name))


def predictions(path: Path | None, *, tiny: bool) -> Predictions:
    """Without a file there are none; of a file for models of another size neither, since rows are called alike."""
    if path is None:
        return Predictions({})
    try:
        told = json.loads(path.read_text())
        peaks = {(row["benchmark"], row["name"]): row["peak"] for row in told["rows"]}
        return Predictions(peaks if told.get("tiny", False) == tiny else {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        refuse(f"--predicted {path}: not what gpu_predicted --out writes, or not all of it.")


def head(benchmark: str, device: str, *, tiny: bool) -> dict[str, Any]:
    """What every file of results says of itself."""
    return {"benchmark": benchmark, "device": device_name(device), "torch": torch.__version__, "tiny": tiny}


def write_results(
    path: Path | None, benchmark: str, device: str, rows: Sequence[Mapping[str, Any]], *, tiny: bool
) -> None:
    """As they come: a machine that is taken away leaves what was measured until then."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        told = head(benchmark, device, tiny=tiny) | {"rows": rows}
        path.write_text(json.dumps(told, indent=2) + "\n")

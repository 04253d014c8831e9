"""The tests marked `gpu`, the demo's recipe, and whether what comes of it is what a CPU makes. No network is needed.

    python -m tests.benchmarks.gpu_check --work FOLDER --out FILE [--device cuda] [--model FILE.gguf|FOLDER]
        [--corpora FOLDER] [--cpu-result FILE] [--tiny]

`--out` holds each result as it comes, one a line: a machine that is taken away leaves what was measured. With
`--device cpu` the same command makes the result of a CPU, which `--cpu-result` then reads. Model and text are those
that `make setup` installs; a machine without them gets `--model` and `--corpora` (data/demo/corpora after `publisher
demo --prepare`). `--only build` leaves the tests out, `--only tests` all else. `--tiny`: the same stages of a random
model, in about a minute on a CPU.

Ends with status 1 if a test failed, the build did, or the comparison shows more than noise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import torch

from tests.benchmarks.gpu_check_build import Made, build, real_demo, tiny_demo
from tests.benchmarks.gpu_check_compare import compare, said
from tests.benchmarks.gpu_check_tests import run_tests
from tests.benchmarks.gpu_report import MIB, device_name


class Results:
    """Rows, printed, and kept in `out`, which is whole after each."""

    def __init__(self, out: Path | None, device: str) -> None:
        self._out, self._rows = out, list[Mapping[str, Any]]()
        self._head = {"benchmark": "check", "device": device_name(device), "torch": torch.__version__}
        print(f"{self._head['device']}, torch {torch.__version__}", flush=True)

    def add(self, row: Mapping[str, Any]) -> None:
        self._rows.append(row)
        if "test" in row:
            print(f"{row['outcome']:8} {row['seconds']:6.1f} s  {row['test']}", flush=True)
        elif "stage" in row:
            print(f"{row['stage']:10} {row['seconds'] / 60:6.2f} minutes", flush=True)
        if self._out is not None:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            rows = ",\n".join(json.dumps(each) for each in self._rows)
            self._out.write_text(f'{json.dumps(self._head)[:-1]}, "rows": [\n{rows}\n]}}\n')


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    results = Results(options.out, options.device)
    good = True
    if options.only != "build":
        good = run_tests(options.device, results.add, options.tests)
    if options.only != "tests":
        good &= _build_and_compare(options, results)
    print("all is well" if good else "SOMETHING IS WRONG: see above", flush=True)
    return 0 if good else 1


def read_made(path: Path) -> Made:
    """What a build came to, by the file that `--out` named. Raises ValueError if it holds none."""
    for row in json.loads(path.read_text())["rows"]:
        if "made" in row:
            return Made.model_validate(row["made"])
    raise ValueError(f"{path} holds no finished build")


def _build_and_compare(options: argparse.Namespace, results: Results) -> bool:
    wanted = None if options.cpu_result is None else read_made(options.cpu_result)
    demo = tiny_demo(options.work) if options.tiny else real_demo(options.work, options.model, options.corpora)
    device = options.device.replace(":", "-")
    try:
        made = build(demo, options.work / (f"tiny-{device}" if options.tiny else device), options.device, results.add)
    except CalledProcessError as error:
        results.add({"build": "failed", "status": error.returncode})
        return False
    results.add({"made": made.model_dump()})
    _print(made)
    if wanted is None:
        return True
    comparison = compare(made, wanted)
    results.add({"comparison": asdict(comparison) | {"equal": comparison.equal}})
    print(*said(comparison), sep="\n", flush=True)
    return comparison.within_noise and not comparison.inputs


def _print(made: Made) -> None:
    print(f"in all {sum(made.seconds.values()) / 60:.2f} minutes")
    print("peak memory: " + ", ".join(f"{name} {peak / MIB:,.0f} MiB" for name, peak in made.peaks.items()))
    print("tokens per second: " + ", ".join(f"{name} {speed:,.0f}" for name, speed in made.speeds.items()))
    retained = made.figures["gain retained"]
    print(f"certificate: {made.verdict}, gain retained {'none' if retained is None else f'{retained:.1%}'}", flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--corpora", type=Path)
    parser.add_argument("--cpu-result", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", choices=["tests", "build"])
    parser.add_argument("--tests", type=Path, nargs="+", default=(), help="files, instead of all that have such tests")
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

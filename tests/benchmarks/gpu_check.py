"""The tests marked `gpu`, the demo's recipe, and whether what comes of it is what a CPU makes. No network is needed.

    python -m tests.benchmarks.gpu_check --work FOLDER --out FILE [--device cuda] [--model FILE.gguf|FOLDER]
        [--corpora FOLDER] [--cpu-result FILE] [--tiny]

`--out` holds each result as it comes, one a line: a machine that is taken away leaves what was measured. With
`--device cpu` the same command makes the result of a CPU, which `--cpu-result` then reads. Model and text are those
that `make setup` installs; a machine without them gets `--model` and `--corpora` (data/demo/corpora after `publisher
demo --prepare`). `--only build` leaves the tests out, `--only tests` all else. `--tiny`: the same stages of a random
model; on a CPU about three minutes, with `--only build` one.

Ends with status 1 if a test failed, the build did, or the comparison shows more than noise. Model and text are compared
with those of `--cpu-result` before the build, which is left out if they differ. Status 2, before anything runs: there
is no such device, or `--cpu-result` holds no finished build.
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

from publisher.errors import RequestFault
from tests.benchmarks.gpu_check_build import Demo, Made, build, digests, real_demo, tiny_demo
from tests.benchmarks.gpu_check_compare import compare, other_inputs, said, said_inputs
from tests.benchmarks.gpu_check_tests import run_tests
from tests.benchmarks.gpu_report import MIB, TINY_SAYS, add_device, head, refuse, title


class Results:
    """Rows, printed, and kept in `out`, which is whole after each."""

    def __init__(self, out: Path | None, device: str, *, tiny: bool) -> None:
        self._out, self._rows = out, list[Mapping[str, Any]]()
        self._head = head("check", device, tiny=tiny)
        print(title(device, tiny=tiny), flush=True)

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
    wanted = None if options.cpu_result is None else _wanted(options.cpu_result)
    demo = None if options.only == "tests" else _demo(options)
    results = Results(options.out, options.device, tiny=options.tiny)
    good = True
    if options.only != "build":
        good = run_tests(options.device, results.add, options.tests)
    if demo is not None:
        good &= _build_and_compare(options, demo, wanted, results)
    note = f" ({TINY_SAYS})" if options.tiny else ""
    print(("all is well" if good else "SOMETHING IS WRONG: see above") + note, flush=True)
    return 0 if good else 1


def read_made(path: Path) -> Made:
    """What a build came to, by the file that `--out` named. Raises ValueError if it holds none."""
    for row in json.loads(path.read_text())["rows"]:
        if "made" in row:
            return Made.model_validate(row["made"])
    raise ValueError(f"{path} holds no finished build")


def _wanted(path: Path) -> Made:
    """What the CPU's build came to; else one sentence, and exit code 2."""
    try:
        return read_made(path)
    except OSError as fault:
        refuse(f"--cpu-result {path} cannot be read: {fault.strerror}.")
    except (ValueError, KeyError, TypeError, AttributeError):
        refuse(f"--cpu-result {path} holds no finished build: give what gpu_check --device cpu --out wrote, all of it.")


def _demo(options: argparse.Namespace) -> Demo:
    """Model and text, before anything runs; if they are not there, a sentence, and exit code 2."""
    try:
        return tiny_demo(options.work) if options.tiny else real_demo(options.work, options.model, options.corpora)
    except RequestFault as fault:
        refuse(f"{fault.message} {fault.way_out}")


def _build_and_compare(options: argparse.Namespace, demo: Demo, wanted: Made | None, results: Results) -> bool:
    if wanted is not None and not _same_inputs(demo, wanted, results):
        return False
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
    results.add(
        {"comparison": asdict(comparison) | {"equal": comparison.equal, "within_noise": comparison.within_noise}}
    )
    print(*said(comparison), sep="\n", flush=True)
    return comparison.within_noise and not comparison.inputs and not comparison.lacking


def _same_inputs(demo: Demo, wanted: Made, results: Results) -> bool:
    """Asked before the build, which would be worth nothing beside the CPU's."""
    others = other_inputs(digests(demo), wanted.inputs)
    if others:
        results.add({"build": "not begun", "inputs": others})
        print(said_inputs(others), "nothing is built; without --cpu-result it is", sep="\n", flush=True)
    return not others


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
    add_device(parser)
    parser.add_argument("--only", choices=["tests", "build"])
    parser.add_argument("--tests", type=Path, nargs="+", default=(), help="files, instead of all that have such tests")
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

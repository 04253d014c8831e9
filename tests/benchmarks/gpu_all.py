"""All that is measured on a GPU, one benchmark after the other, each within its time: tables and JSON in one folder.

    python -m tests.benchmarks.gpu_all --work FOLDER --out FOLDER [--parts headline …] [--minutes 9] [--tiny]
        [--predicted predicted.json] [--cpu-result cpu.json --model FOLDER --corpora FOLDER]

For a card that is to be had for a while only. What a benchmark printed is in OUT/NAME.txt, its figures are in
OUT/NAME.json, both as they come: one that takes longer than `--minutes` is ended, and what it had measured stays. What
it wrote below WORK is deleted before the next one begins: 64 GiB of disk hold any of them. `--predicted` and
`--cpu-result` are what gpu_predicted and gpu_check wrote on a CPU. Exit code 1 if one failed or was ended.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import torch

#: by how much they say about the project's claims, the one that does so first
PARTS: dict[str, tuple[str, ...]] = {
    "headline": ("gpu_headline", "--whole"),
    "check": ("gpu_check",),
    "table8": ("gpu_table8",),
    "user": ("gpu_user",),
    "publisher": ("gpu_publisher",),
}
#: options that are handed on, to whom
_OF_CHECK, _OF_OTHERS = ("cpu_result", "model", "corpora"), ("predicted",)
#: seconds in which one that is ended may write what it has
_GRACE = 10.0


@dataclass(frozen=True)
class Ended:
    """How a benchmark came out, in a word, after so many seconds."""

    part: str
    word: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.part:10} {self.word:10} {self.seconds:6.0f} s"


def main() -> None:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    ended = [_run(part, options) for part in options.parts]
    print(*ended, sep="\n")
    sys.exit(any(one.word != "done" for one in ended))


def _run(part: str, options: argparse.Namespace) -> Ended:
    module, *more = PARTS[part]
    work, begun = options.work / part, time.monotonic()
    work.mkdir(parents=True)
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *more, "--work", str(work)]
    command += ["--out", str(options.out / f"{part}.json"), "--device", options.device]
    command += ["--tiny"] if options.tiny else []
    for name in _OF_CHECK if part == "check" else _OF_OTHERS:
        command += [f"--{name.replace('_', '-')}", str(value)] if (value := getattr(options, name)) else []
    print(f"{part}: {free(options.work)} of disk free", flush=True)
    try:
        word = _watched(command, options.out / f"{part}.txt", 60 * options.minutes)
    finally:
        shutil.rmtree(work)
    return Ended(part, word, time.monotonic() - begun)


def _watched(command: list[str], text: Path, seconds: float) -> str:
    """Its output goes to `text` and here. Ended with all its processes, since each side is one of its own."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as run:
        telling = Thread(target=_tell, args=(run, text))
        telling.start()
        try:
            code: int | None = run.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(run)
            telling.join()
    return "ended" if code is None else "done" if code == 0 else "failed"


def _tell(run: subprocess.Popen[bytes], text: Path) -> None:
    assert run.stdout is not None
    with text.open("wb", buffering=0) as file:
        for line in run.stdout:
            file.write(line)
            print(line.decode(errors="replace"), end="", flush=True)


def _end(run: subprocess.Popen[bytes]) -> None:
    for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        if run.poll() is not None:
            return
        os.killpg(run.pid, number)
        try:
            run.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def free(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    return f"{shutil.disk_usage(folder).free / 2**30:.0f} GiB"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=9.0, help="of each part, at most")
    parser.add_argument("--tiny", action="store_true")
    for name in (*_OF_CHECK, *_OF_OTHERS):
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()

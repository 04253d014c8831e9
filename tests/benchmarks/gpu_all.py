"""All that is measured on a GPU, one benchmark after the other, each within its time: tables and JSON in one folder.

    python -m tests.benchmarks.gpu_all --work FOLDER --out FOLDER [--parts headline …] [--minutes 9] [--tiny]
        [--predicted predicted.json] [--cpu-result cpu.json --model FOLDER --corpora FOLDER]

For a card that is to be had for a while only. What a benchmark printed is in OUT/NAME.txt, its figures are in
OUT/NAME.json, both as they come: one that takes longer than `--minutes` is ended, and what it had measured stays.
OUT/summary.txt says how each came out. What it wrote below WORK is deleted before the next one begins: 64 GiB of disk
hold any of them. `--predicted` and `--cpu-result` are what gpu_predicted and gpu_check wrote on a CPU. Whoever stops
this by Ctrl-C or SIGTERM stops what runs. Exit code 1 if one failed or was ended.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from threading import Thread

from tests.benchmarks.gpu_report import add_device

#: by how much they say about the project's claims, the one that does so first
PARTS: dict[str, tuple[str, ...]] = {
    "headline": ("gpu_headline", "--whole"),
    "check": ("gpu_check",),
    "table8": ("gpu_table8",),
    "user": ("gpu_user",),
    "publisher": ("gpu_publisher",),
}
#: options that are handed on, and to whom
HANDED_ON = {
    "predicted": ("headline", "table8", "user"),
    "cpu_result": ("check",),
    "model": ("check",),
    "corpora": ("check",),
}
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
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stopped)
    options.out.mkdir(parents=True, exist_ok=True)
    summary, ended = options.out / "summary.txt", list[Ended]()
    for part in options.parts:
        ended.append(_run(part, options))
        summary.write_text("".join(f"{one}\n" for one in ended))
    print(summary.read_text(), end="")
    sys.exit(any(one.word != "done" for one in ended))


def _stopped(number: int, frame: object) -> None:
    raise SystemExit(128 + number)  # so that what runs is ended on the way out


def _run(part: str, options: argparse.Namespace) -> Ended:
    work, begun = options.work / part, time.monotonic()
    try:
        work.mkdir(parents=True)
    except OSError as error:  # what lies there is somebody's
        print(f"{part}: {work} cannot be made: {error.strerror}. Delete it, or choose another --work.", flush=True)
        return Ended(part, "failed", 0.0)
    print(f"{part}: {shutil.disk_usage(work).free / 2**30:.0f} GiB of disk free", flush=True)
    try:
        word = _watched(_command(part, work, options), options.out / f"{part}.txt", 60 * options.minutes)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Ended(part, word, time.monotonic() - begun)


def _command(part: str, work: Path, options: argparse.Namespace) -> list[str]:
    module, *more = PARTS[part]
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *more, "--work", str(work)]
    command += ["--out", str(options.out / f"{part}.json"), "--device", options.device]
    for name, parts in HANDED_ON.items():
        if part in parts and (value := getattr(options, name)):
            command += [f"--{name.replace('_', '-')}", str(value)]
    return [*command, "--tiny"] if options.tiny else command


def _watched(command: list[str], text: Path, seconds: float) -> str:
    """Its output goes to `text` and here. Ended with all its processes, since each side is one of its own."""
    with (
        text.open("wb", buffering=0) as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as run,
    ):
        telling = Thread(target=_tell, args=(run, file), daemon=True)
        telling.start()
        try:
            code: int | None = run.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(run)
            telling.join(_GRACE)
        word = "ended" if code is None else "done" if code == 0 else "failed"
        file.write(f"{word}\n".encode())
    return word


def _tell(run: subprocess.Popen[bytes], file: RawIOBase) -> None:
    assert run.stdout is not None
    for line in run.stdout:
        with suppress(OSError):  # a full disk: who is read goes on
            file.write(line)
        print(line.decode(errors="replace"), end="", flush=True)


def _end(run: subprocess.Popen[bytes]) -> None:
    """The process, if it still runs, and whatever it left."""
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            run.wait(_GRACE)
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    add_device(parser)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=9.0, help="of each part, at most")
    parser.add_argument("--tiny", action="store_true")
    for name in HANDED_ON:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()

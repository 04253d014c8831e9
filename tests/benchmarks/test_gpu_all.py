"""Benchmarks one after the other: each within its time, nothing left behind, what was measured kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import gpu_all
from tests.servers import wait_until

#: a part that writes its process id, prints, leaves a child and then does as it is told
PART = """
import argparse, pathlib, subprocess, sys, time
options = argparse.ArgumentParser()
for name in ("--work", "--out", "--device"):
    options.add_argument(name)
work = pathlib.Path(options.parse_args().work)
(work / "large").write_bytes(b"0" * 1000)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path({pids!r}).write_text(str(child.pid))
print("a figure", flush=True)
time.sleep({seconds})
sys.exit({code})
"""


def stub(monkeypatch: pytest.MonkeyPatch, folder: Path, seconds: float, code: int = 0) -> Path:
    pids = folder / "pid"
    text = PART.format(pids=str(pids), seconds=seconds, code=code)

    def command(part: str, work: Path, options: object) -> list[str]:
        return [sys.executable, "-c", text, "--work", str(work)]

    monkeypatch.setattr(gpu_all, "_command", command)
    return pids


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, minutes: float) -> int:
    words = ["gpu_all", "--work", str(folder / "work"), "--out", str(folder / "out"), "--minutes", str(minutes)]
    monkeypatch.setattr(sys, "argv", [*words, "--parts", "user"])
    with pytest.raises(SystemExit) as end:
        gpu_all.main()
    return int(end.value.code or 0)


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


@pytest.mark.parametrize(
    ("seconds", "code", "word"), [(0, 0, "done"), (0, 3, "failed"), (600, 0, "ended")], ids=["done", "failed", "ended"]
)
def test_what_was_printed_stays_and_nothing_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, code: int, word: str
) -> None:
    pids = stub(monkeypatch, tmp_path, seconds, code)
    assert run(monkeypatch, tmp_path, 0.05) == int(word != "done")
    assert (tmp_path / "out" / "user.txt").read_text() == f"a figure\n{word}\n"
    assert (tmp_path / "out" / "summary.txt").read_text().split()[:2] == ["user", word]
    assert not (tmp_path / "work" / "user").exists()
    wait_until(lambda: is_gone(int(pids.read_text())), "the part's child to end")


def test_what_lies_where_a_part_would_write_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch, tmp_path, 0)
    mine = tmp_path / "work" / "user" / "mine"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert run(monkeypatch, tmp_path, 0.05) == 1
    assert mine.read_text() == "mine"
    assert "failed" in (tmp_path / "out" / "summary.txt").read_text()


def test_sigterm_ends_what_runs(tmp_path: Path) -> None:
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "tests.benchmarks.gpu_all", *folders, "--device", "cpu", "--tiny"]
    with subprocess.Popen([*command, "--parts", "user"], stdout=subprocess.DEVNULL) as all_of_them:
        wait_until((tmp_path / "work" / "user").exists, "the part to begin")
        os.kill(all_of_them.pid, signal.SIGTERM)
        assert all_of_them.wait(60) == 128 + signal.SIGTERM
    assert not (tmp_path / "work" / "user").exists()

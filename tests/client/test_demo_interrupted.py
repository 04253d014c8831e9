"""Ctrl-C ends the demo with a sentence, status 130, and nobody left at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from publisher.client.demo.service import downstream
from tests.servers import STOPPABLE, wait_until


def test_interrupted_demo_says_so_and_leaves_nobody(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "publisher.client.main", "demo", "--data", str(tmp_path / "demo")]
        demo = subprocess.Popen([*STOPPABLE, *command], stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until(lambda: "0. model and text" in log.read_text(), "begin of the demo")
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 128 + signal.SIGINT
    finally:
        demo.kill()
        demo.wait()
    said = log.read_text()
    assert "Stopped." in said
    assert "Traceback" not in said
    # killed by then; the kernel may still be taking its memory back
    wait_until(lambda: not [one for one in psutil.process_iter() if _is_at_work(one, demo.pid)], "end of the group")


def _is_at_work(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def test_interrupted_user_of_the_demo_works_no_longer() -> None:
    me = psutil.Process()

    def at_work() -> list[psutil.Process]:
        return [child for child in me.children() if "publisher.client.demo.downstream" in " ".join(child.cmdline())]

    def interrupt(number: int, frame: object) -> None:
        if at_work():
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            downstream(Console(quiet=True), "measure", ["measure", "none", "none", "none"], {})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert at_work() == []

"""The tests marked `gpu`, each told as it ends: {test, outcome, seconds}, and of those that failed what they said.

They run in a process of their own, and no file without such a test is imported: a bare machine need not have all that
the others' imports ask for. On a CPU the same bodies run there, which is how the check is tried without a GPU.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import pytest

TESTS = Path(__file__).parents[1]
#: how a file says that it has tests marked so; which ones, pytest says
_MARKED = re.compile(r"^from tests\.devices import", re.MULTILINE)
#: seconds for one test: the machine is lent for minutes
_PATIENCE = 120
_SAID = 2000


def marked_files() -> list[Path]:
    return [path for path in sorted(TESTS.rglob("test_*.py")) if _MARKED.search(path.read_text(encoding="utf-8"))]


def run_tests(device: str, record_row: Callable[[Mapping[str, Any]], None], files: Sequence[Path] = ()) -> bool:
    """Run those in `files`, or in all; whether there were some and all passed."""
    command = [sys.executable, "-m", __name__, device, *map(str, files or marked_files())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TESTS.parent) as process:
        assert process.stdout is not None
        for line in process.stdout:
            record_row(json.loads(line))
    return process.returncode == 0


class Teller:
    """pytest's plugin: chooses the tests, and writes what becomes of each to `out`, a line of JSON each."""

    def __init__(self, device: str, out: TextIO) -> None:
        self._device, self._out = device, out

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Before those without a GPU here are left out (tests/conftest.py)."""
        chosen = list(chosen_of(items, self._device))
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._tell(report.nodeid, report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._tell(report.nodeid, report)

    def _tell(self, name: str, report: pytest.TestReport | pytest.CollectReport) -> None:
        told: dict[str, Any] = {"test": name, "outcome": report.outcome}
        told |= {"seconds": round(getattr(report, "duration", 0.0), 2)}
        if report.failed:
            told["said"] = report.longreprtext[-_SAID:]
        print(json.dumps(told), file=self._out, flush=True)


def chosen_of(items: Sequence[pytest.Item], device: str) -> Iterator[pytest.Item]:
    """On a GPU the marked ones; on a CPU those that are the same test with `device` cpu."""
    marked = {_function(item) for item in items if item.get_closest_marker("gpu")}
    for item in items:
        callspec = getattr(item, "callspec", None)
        on_cpu = callspec is not None and callspec.params.get("device") == "cpu" and _function(item) in marked
        if on_cpu if device == "cpu" else item.get_closest_marker("gpu"):
            yield item


def _function(item: pytest.Item) -> tuple[Path, str]:
    return item.path, getattr(item, "originalname", item.name)


def main(device: str, *files: str) -> int:
    """What pytest itself prints goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    options = ["-c", str(TESTS.parent / "pyproject.toml"), "--rootdir", str(TESTS.parent), "-p", "no:cacheprovider"]
    options += ["-o", f"timeout={_PATIENCE}", "--continue-on-collection-errors"]
    return int(pytest.main([*options, *files], plugins=[Teller(device, out)]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""How far a recovered update is from what was trained, for every adapter method: the oracles of the tests, as a table.

    python -m tests.benchmarks.recovery_errors

Largest difference of any entry, over the largest change or 1 (see oracle.py beside those tests), in fp32: over
Llama, Qwen3 and Qwen2 with biases, for each kind of checkpoint; and for one that lost single weights.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

_TESTS = (
    "tests/checkpoint/recovery/methods/test_every_method.py",
    "tests/checkpoint/recovery/test_single_weights.py",
)
_SINGLE = "single weights"
_KINDS = ("unaligned", "aligned", "NF4", _SINGLE)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", f"--junitxml={report}", *_TESTS]
        status = subprocess.run([*command, "-k", "test_change_o"], check=False).returncode
        found = errors(report)
    print(f"| method | {' | '.join(_KINDS)} |", "|---" * (1 + len(_KINDS)) + "|", sep="\n")
    for method, by_kind in found.items():
        print(f"| {method} | {' | '.join(_shown(by_kind[kind]) for kind in _KINDS)} |")
    sys.exit(status)


def errors(report: Path) -> dict[str, dict[str, list[float]]]:
    """Method → kind of checkpoint → the error of every test that measured one."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for case in ElementTree.parse(report).iter("testcase"):
        match = re.search(r"\[(.+)\]$", case.attrib["name"])
        measured = case.find("./properties/property[@name='error']")
        if match and measured is not None:
            method, _, rest = match[1].partition("-")
            found[method][rest.partition("-")[2] or _SINGLE].append(float(measured.attrib["value"]))
    return found


def _shown(values: list[float]) -> str:
    return f"{max(values):.1e}" if values else ""


if __name__ == "__main__":
    main()

"""`publisher build … --until prune` as a process of its own, measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.sides import Cost


def build_until_prune(base: Path, out: Path, pruning: dict[str, Any], threads: int = 2) -> Cost:
    """Prune `base` into the new folder `out`. Peak memory is what the kernel counted for the process and its children.

    Raises CalledProcessError if the build fails; its own words are on stderr.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    recipe, corpus = out.parent / "recipe.json", _text(out.parent / "text.jsonl")
    recipe.write_text(json.dumps({"pruning": pruning, "alignment": None}))
    command = [sys.executable, "-m", "publisher.client.main", "build", str(base), str(out)]
    command += ["--recipe", str(recipe), "--corpus", f"text={corpus}", "--until", "prune", "--device", "cpu"]
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        print(said, file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, command)
    seconds = time.perf_counter() - start
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, before=0)


def _text(path: Path) -> Path:
    """Words enough for any calibration here, one token per byte."""
    lines = (json.dumps({"text": f"chapter {n}: the whale swims, the sea is wide. " * 20}) for n in range(200))
    path.write_text("\n".join(lines))
    return path

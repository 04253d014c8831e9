"""Blocks of a page run in one shell, in order, as somebody would paste them into a clone after `make setup`.

What is replaced: the ports, by free ones.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tests.docs.blocks import ROOT, Block

STARTED = "Ctrl-C stops the service"
_LOG = "stays.log"


def make_clone(folder: Path) -> Path:
    """A folder with `.venv/bin`, as `make setup` leaves it in a clone."""
    commands = folder / ".venv" / "bin"
    commands.mkdir(parents=True)
    python = shlex.quote(sys.executable)
    for name, command in {"python": python, "publisher": f"{python} -m publisher.client.main"}.items():
        (commands / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (commands / name).chmod(0o755)
    return folder


def run_page(blocks: Sequence[Block], clone: Path, port: int, hub_port: int) -> subprocess.CompletedProcess[str]:
    """Run every block that runs; the answer's last line of stderr names the one that failed."""
    script = "\n".join([_BEGIN, *(_step(block, number) for number, block in enumerate(blocks) if block.runs)])
    for written, free in {"127.0.0.1:8000": f"127.0.0.1:{port}", "127.0.0.1:8001": f"127.0.0.1:{hub_port}"}.items():
        script = script.replace(written, free)
    script = script.replace("publisher up ", f"publisher up --port {port} --hub-port {hub_port} ")
    (clone / "page.sh").write_text(script)
    return _run(["bash", "page.sh"], clone, dict(_environment(clone, port)))


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """In a session of its own, of which nothing is left behind, whatever ends the test."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes) as process:
        try:
            output, errors = process.communicate()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


_BEGIN = f"""
set -e -o pipefail
trap 'status=$?; kill $(jobs -p) 2>/dev/null || true; wait; [ $status = 0 ] || echo "failed: $BLOCK" >&2' EXIT
touch {_LOG}
until_started() {{
  for _ in $(seq 600); do grep -q "{STARTED}" {_LOG} && return; kill -0 $! || return; sleep 0.2; done; return 1
}}
"""


def _step(block: Block, number: int) -> str:
    begin = f"BLOCK={shlex.quote(block.place)}\n"
    if block.language == "python":
        file = block.saved_as or f"block_{number}.py"
        saved = f"cat > {file} <<'END OF BLOCK'\n{block.text}\nEND OF BLOCK\n"
        return begin + saved + ("" if block.saved_as else f".venv/bin/python {file}\n")
    if block.marker == "stays":
        return begin + f"{block.text} > {_LOG} 2>&1 &\nuntil_started\n"
    return begin + block.text + "\n"


def _environment(clone: Path, port: int) -> Iterator[tuple[str, str]]:
    """This process's, without what would keep clients of the page's own Hub offline or name another one."""
    yield from ((name, value) for name, value in os.environ.items() if not name.startswith(("PUBLISHER_", "HF_")))
    yield "PYTHONPATH", str(ROOT)
    yield "PUBLISHER_URL", f"http://127.0.0.1:{port}"
    yield "XDG_CONFIG_HOME", str(clone / "config")
    yield "HF_HOME", str(clone / "hf")
    yield "OMP_NUM_THREADS", "1"

"""The service as `publisher up` starts it, for the time of the demo."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from publisher import IDLE_THREADS
from publisher.client.client import Client
from publisher.client.processes import end_with_parent
from publisher.client.progress import shown_on, working
from publisher.client.up import is_ready
from publisher.errors import InfrastructureFault

START_SECONDS = 120


@dataclass(frozen=True)
class RunningService:
    """Where the demo's service answers and with which key."""

    url: str
    hub: str
    key: str
    process: subprocess.Popen[bytes]
    device: str

    def client(self) -> Client:
        return Client(self.url, self.key)


@contextmanager
def running_service(
    data_dir: Path, console: Console, device: str = "auto", port: int = 8000
) -> Iterator[RunningService]:
    """Start `publisher up` on `port` (or a free one) over `data_dir`, its worker on `device`; stop it at the end."""
    port = port if _free(port) else _free_port()
    hub_port = port + 1 if _free(port + 1) else _free_port()
    key = _demo_key(data_dir / "key")
    environment = os.environ | {"PUBLISHER_BOOTSTRAP_KEY": key, "PUBLISHER_WORKER_DEVICE": device}
    command = [sys.executable, "-m", "publisher.client.main", "up", "--data", str(data_dir)]
    command += ["--port", str(port), "--hub-port", str(hub_port)]
    log = data_dir / "service.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - no bar is being drawn yet
        )
    service = RunningService(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{hub_port}", key, process, device)
    try:
        with working(console, "start the service"):
            _wait(service, log)
        yield service
    finally:
        stop(process)


def _wait(service: RunningService, log: Path) -> None:
    for _ in range(START_SECONDS * 2):
        try:
            if is_ready(service.url) and httpx.get(f"{service.hub}/healthz", timeout=2).is_success:
                return
        except httpx.TransportError:
            pass
        try:
            service.process.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
        break
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise InfrastructureFault(f"the service did not start; the end of {log}:\n{tail}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, as Ctrl-C would; SIGKILL to the group if that takes more than half a minute."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def downstream(console: Console, title: str, arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run publisher.client.demo.downstream and show how far it is; answers its result."""
    command = [sys.executable, "-m", "publisher.client.demo.downstream", *arguments]
    result: dict[str, Any] | None = None
    with (
        shown_on(console) as shown,
        subprocess.Popen(
            command,
            env=IDLE_THREADS | os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        shown.started(title, time.monotonic())
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                said = json.loads(line)
                result = said.get("result", result)
                if "done" in said:
                    shown.note(title, said["note"])
                    shown.progress(title, said["done"], said["total"], "", time.monotonic())
            errors = process.stderr.read()
        except BaseException:  # Ctrl-C: a signal to this process alone leaves that one at work
            process.kill()
            raise
        if result is not None:
            shown.ended(title, "done")
    if process.returncode or result is None:
        raise InfrastructureFault(f"{title} failed:\n{errors[-2000:]}")
    return result


def _demo_key(path: Path) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(f"loram_{secrets.token_urlsafe(32)}")
    return path.read_text()


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

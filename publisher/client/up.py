"""`publisher up`: the whole service on one machine: API, dashboard, embedded Hub and a worker, nothing to install."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import click
import httpx

from publisher.client.extras import require
from publisher.client.processes import end_with_parent
from publisher.errors import InfrastructureFault, RequestFault
from publisher.files.private import umask_of
from publisher.settings import settings
from publisher.store.starting import refuse_unusable

START_SECONDS = 120
#: a process that ends sooner than this after its start, so many times in a row, is not started again
SETTLED_SECONDS, QUICK_ENDS = 5, 3


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--hub-port",
    default=None,
    type=click.IntRange(0, 65535),
    help="port of the embedded Hub's own address; 0: only /hub  [default: the port after --port, if it is free]",
)
@click.option(
    "--data",
    "data_dir",
    default=Path("data"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="folder that keeps everything",
)
@click.option(
    "--allow",
    "roots",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="folder from which models and corpora may be registered by path; may be repeated",
)
def up(host: str, port: int, hub_port: int | None, data_dir: Path, roots: tuple[Path, ...]) -> None:
    """Start the service with a worker and keep both running until Ctrl-C."""
    require("service")
    settings()  # what is wrong with them is said once, and not by every process
    refuse_taken_port(host, port, "--port")
    own_port = port_of_hub(host, port, hub_port)
    os.environ |= service_environment(host, port, own_port, data_dir.absolute(), [root.absolute() for root in roots])
    settings.cache_clear()
    refuse_unusable(settings())
    os.umask(umask_of(group=settings().group_access))
    commands = {"api": server_command("publisher.app:app", host, port)}
    if own_port is not None:
        commands["hub"] = server_command("publisher.hub.app:app", host, own_port)
    supervisor = Supervisor(commands | {"worker": worker_command()}, os.environ)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, supervisor.stop)
    supervisor.start()
    try:
        address = settings().public_url
        wait_until_ready(address, supervisor, None if own_port is None else address_of(host, own_port))
        click.echo(f"dashboard: {address}   Hub: {settings().resolved_hub_endpoint}")
        if settings().first_key_file.exists():
            click.echo(f"first API key, to sign in with: cat {shlex.quote(str(settings().first_key_file))}")
        click.echo("Ctrl-C stops the service; finished stages of running jobs are kept.")
        supervisor.supervise()
    finally:
        supervisor.end()


def port_of_hub(host: str, port: int, chosen: int | None) -> int | None:
    """The port of the embedded Hub's own address; None where it has none beside /hub."""
    if chosen == 0 or _is_set("PUBLISHER_HUB_ENDPOINT"):
        return None
    if chosen is not None:
        refuse_taken_port(host, chosen, "--hub-port")
        return chosen
    try:
        refuse_taken_port(host, port + 1, "--hub-port")
    except RequestFault as taken:
        click.echo(f"The Hub has no port of its own: {taken} It answers under /hub.", err=True)
        return None
    return port + 1


def refuse_taken_port(host: str, port: int, option: str) -> None:
    if port > 65535:
        raise RequestFault(f"there is no port {port}.", way_out=f"Choose another with {option}.")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RequestFault(
                f"cannot listen on {host} port {port}: {error.strerror}.", way_out=f"Choose another with {option}."
            ) from error


def address_of(host: str, port: int) -> str:
    """The address at which this machine reaches what listens there."""
    reachable = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104
    return f"http://{f'[{reachable}]' if ':' in reachable else reachable}:{port}"


def service_environment(
    host: str, port: int, hub_port: int | None, data_dir: Path, roots: list[Path]
) -> dict[str, str]:
    """What all processes must agree on; settings that are in the environment already win."""
    environment = {
        "PUBLISHER_DATA_DIR": str(data_dir),
        "PUBLISHER_PUBLIC_URL": address_of(host, port),
        "HF_HUB_DISABLE_XET": "1",  # huggingface_hub decides on Xet at import and does not fall back
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PUBLISHER_LOG_LEVEL": "warning",  # a terminal is not for a line per request
    }
    if hub_port is not None:
        environment["PUBLISHER_HUB_URL"] = address_of(host, hub_port)
    if roots:
        all_roots = [data_dir / "models", data_dir / "corpora", *roots]
        environment["PUBLISHER_LOCAL_ROOTS"] = json.dumps([str(root) for root in all_roots])
    return {name: value for name, value in environment.items() if not _is_set(name)}


def _is_set(name: str) -> bool:
    """As it is, or by a file."""
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))


def server_command(application: str, host: str, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "uvicorn", application),
        *("--host", host, "--port", str(port), "--timeout-graceful-shutdown", "3"),
    ]


def worker_command() -> list[str]:
    return [
        *(sys.executable, "-m", "celery", "--quiet", "-A", "worker.celery", "worker"),
        *("--pool", "threads", "--concurrency", "1", "--loglevel", "WARNING"),
    ]


#: what the API has no business with: the key that published checkpoints are signed with
_OF_WORKERS = ("PUBLISHER_SIGNING_KEY", "PUBLISHER_SIGNING_KEY_FILE")


class Supervisor:
    """Keeps named processes running: one that ends is started again until `stop` is called."""

    def __init__(self, commands: Mapping[str, list[str]], environment: Mapping[str, str]) -> None:
        self._commands = commands
        self._environment = environment
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started_at: dict[str, float] = {}
        self._quick_ends: Counter[str] = Counter()
        self._stopping = False

    def start(self) -> None:
        for name in self._commands:
            self._start(name)

    def _start(self, name: str) -> None:
        self._started_at[name] = time.monotonic()
        self._processes[name] = subprocess.Popen(
            self._commands[name],
            env={key: value for key, value in self._environment.items() if name == "worker" or key not in _OF_WORKERS},
            preexec_fn=end_with_parent,  # noqa: PLW1509 - this process has one thread
        )

    @property
    def ended(self) -> list[str]:
        return [name for name, process in self._processes.items() if process.poll() is not None]

    def supervise(self) -> None:
        """Until told to stop."""
        while not self._stopping:
            for name in self.ended:
                self._restart(name)
            time.sleep(0.2)

    def _restart(self, name: str) -> None:
        quick = time.monotonic() - self._started_at[name] < SETTLED_SECONDS
        self._quick_ends[name] = self._quick_ends[name] + 1 if quick else 0
        if self._quick_ends[name] == QUICK_ENDS:
            raise InfrastructureFault(f"the {name} process ends again and again; its last lines above say why.")
        click.echo(f"the {name} process ended (status {self._processes[name].returncode}); starting it again", err=True)
        self._start(name)

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Ask `supervise` to return; a signal handler."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        return self._stopping

    def end(self, patience: float = 15) -> None:
        """Terminate all processes, the worker first, and kill what does not go within `patience` seconds."""
        running = [process for process in reversed(self._processes.values()) if process.poll() is None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + patience
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_ready(url: str, supervisor: Supervisor, hub_url: str | None = None) -> None:
    """Return when /readyz says so, a worker is there and the Hub's own address answers, if it has one, or when a stop
    was asked for; InfrastructureFault if a process ends before."""
    deadline = time.monotonic() + START_SECONDS
    while not supervisor.stopping:
        if supervisor.ended:
            raise InfrastructureFault(f"the {supervisor.ended[0]} process did not start; its lines above say why.")
        try:
            if is_ready(url) and (hub_url is None or httpx.get(f"{hub_url}/healthz", timeout=2).is_success):
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise InfrastructureFault(f"{url} did not get ready within {START_SECONDS} seconds.")
        time.sleep(0.2)


def is_ready(url: str) -> bool:
    """Whether the service at `url` is whole and has a worker. Raises httpx.TransportError if it does not answer."""
    answer = httpx.get(f"{url}/readyz", timeout=2)
    return answer.is_success and bool(answer.json()["workers"])

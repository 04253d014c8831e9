"""A real service, and the `publisher` command in this process, as somebody uses it who has signed in nowhere yet.

The service is imported by tests that use it: training by TRL needs none (tests/devices.py).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from publisher.client import Client
    from tests.api.conftest import RunningApi, Tenant


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    from tests.api.conftest import serve_api, write_corpus
    from tests.models import tiny_llama

    with serve_api(tmp_path_factory.mktemp("api")) as running:
        tiny_llama(running.roots / "tiny")
        write_corpus(running.roots / "novel.jsonl")
        yield running


@pytest.fixture
def tenant(api: RunningApi) -> Tenant:
    return api.tenant()


@pytest.fixture
def client(tenant: Tenant) -> Iterator[Client]:
    from publisher.client import Client

    with Client(tenant.url, tenant.key) as client:
        yield client


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


class Shell(Protocol):
    def __call__(self, *arguments: str, stdin: str = "") -> Done: ...


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """`publisher …` with a configuration folder of its own and standard input that is no terminal."""
    from publisher.client.main import status

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("PUBLISHER_URL", "PUBLISHER_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        try:
            code: Any = status(arguments)
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        return Done(int(code), said.out, said.err)

    return run


@pytest.fixture
def signed_in(shell: Shell, tenant: Tenant) -> Shell:
    assert shell("login", tenant.url, "--name", "lab", stdin=f"{tenant.key}\n").status == 0
    return shell

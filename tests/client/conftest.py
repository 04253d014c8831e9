"""A real service, and the `publisher` command in this process, as somebody uses it who has signed in nowhere yet."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from publisher.client import Client
from publisher.client.main import status
from tests.api.conftest import RunningApi, Tenant, serve_api, write_corpus
from tests.models import tiny_llama


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve_api(tmp_path_factory.mktemp("api")) as running:
        tiny_llama(running.roots / "tiny")
        write_corpus(running.roots / "novel.jsonl")
        yield running


@pytest.fixture
def tenant(api: RunningApi) -> Tenant:
    return api.tenant()


@pytest.fixture
def client(tenant: Tenant) -> Iterator[Client]:
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

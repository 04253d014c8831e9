"""The two forms of an installation: all embedded, and PostgreSQL with Redis."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests import servers
from tests.faults.installation import Installation

#: the embedded one has its worker killed and its jobs cancelled by tests/e2e, too
FORMS = [pytest.param("embedded", marks=pytest.mark.long), "distributed"]


@pytest.fixture(scope="module", params=FORMS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with an API and without workers, with a base model and text."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        yield from _install(folder, f"sqlite:///{folder / 'publisher.db'}", "filesystem://")
        return
    server = str(request.getfixturevalue("postgresql_server"))
    with psycopg.connect(server, autocommit=True) as connection, servers.redis_server(folder) as broker:
        connection.execute("CREATE DATABASE faults")
        yield from _install(folder, server.replace("/postgres", "/faults"), broker)
        connection.execute("DROP DATABASE faults WITH (FORCE)")


def _install(*where: object) -> Iterator[Installation]:
    installation = Installation.create(*where)  # type: ignore[arg-type]
    try:
        installation.start_api()
        installation.register()
        yield installation
    finally:
        installation.stop()


@pytest.fixture
def installation(running: Installation) -> Iterator[Installation]:
    """The installation, whose workers are gone after the test."""
    yield running
    running.stop_workers()

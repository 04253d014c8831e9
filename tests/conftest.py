"""Fixtures that many tests share: real databases and real brokers, imported by those that use them.

So tests marked `gpu` run on a machine that has nothing but what they compute with.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import HOME

if TYPE_CHECKING:
    from publisher.settings import Settings
    from publisher.store.database import Database

#: folders whose files run whole jobs, for minutes: begun at last, one of them would leave the other process idle
LONGEST_FIRST = ("docs", "e2e", "faults")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(here).parts[0] not in LONGEST_FIRST)
    _leave_out_gpu(config, items)


def _leave_out_gpu(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are left out where there is none, rather than reported as skipped."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        config.hook.pytest_deselected(items=marked)
        items[:] = [item for item in items if item not in marked]


def pytest_unconfigure() -> None:
    """xdist's workers end without what Python does at its exit."""
    if HOME:
        HOME.cleanup()


@pytest.fixture(autouse=True)
def _ordinary_umask() -> Iterator[None]:
    """A service that runs in this process closes what is written from then on to others; tests' own files are not."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL server's maintenance database."""
    from tests import servers

    with servers.postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis server that all tests share; tests that stop theirs start one of their own."""
    from tests import servers

    with servers.redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The Redis server, emptied."""
    import redis

    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """An empty PostgreSQL database for one test."""
    with postgresql_database(postgresql_server) as url:
        yield url


@contextmanager
def postgresql_database(server: str, how: str = "") -> Iterator[str]:
    import psycopg

    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} {how}")
        yield server.replace("/postgres", f"/{name}")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'publisher.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """A database without tables, of each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be copied: migrations take many times as long."""
    from publisher.store import migrate

    path = tmp_path_factory.mktemp("migrated") / "publisher.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgresql(postgresql_server: str) -> Iterator[str]:
    """A template's name: PostgreSQL copies it, as long as nobody is connected to it."""
    from publisher.store import migrate

    with postgresql_database(postgresql_server) as url:
        migrate.upgrade(url)
        yield url.rpartition("/")[-1]


@pytest.fixture
def migrated_sqlite_url(sqlite_url: str, migrated_sqlite: Path, tmp_path: Path) -> str:
    shutil.copyfile(migrated_sqlite, tmp_path / "publisher.db")
    return sqlite_url


@pytest.fixture
def migrated_postgresql_url(postgresql_server: str, migrated_postgresql: str) -> Iterator[str]:
    with postgresql_database(postgresql_server, f"TEMPLATE {migrated_postgresql} STRATEGY FILE_COPY") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of each kind."""
    return str(request.getfixturevalue(f"migrated_{request.param}_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of each kind."""
    from publisher.store.database import Database

    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The embedded form below a folder of the test, whatever the environment says."""
    from publisher.settings import Settings

    return Settings(data_dir=tmp_path / "data", broker_url="filesystem://")

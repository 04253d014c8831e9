"""Fixtures that many tests share: real databases and real brokers."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database
from tests import HOME, servers


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
    with servers.postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis server that all tests share; tests that stop theirs start one of their own."""
    with servers.redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The Redis server, emptied."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """An empty PostgreSQL database for one test."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield postgresql_server.replace("/postgres", f"/{name}")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'publisher.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """A database without tables, of each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def database_url(empty_database_url: str) -> str:
    """A migrated database of each kind."""
    migrate.upgrade(empty_database_url)
    return empty_database_url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of each kind."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The embedded form below a folder of the test, whatever the environment says."""
    return Settings(data_dir=tmp_path / "data", broker_url="filesystem://")

"""`publisher admin member`, against the database of the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from publisher.client.main import cli
from publisher.errors import NotFound
from publisher.people.identity import Identity
from publisher.settings import settings
from publisher.store import keys, members, migrate
from publisher.store.database import Database

Run = Callable[..., str]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Of a service whose settings the environment says, with a tenant "lab"."""
    monkeypatch.setenv("PUBLISHER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    settings.cache_clear()
    migrate.upgrade(settings().resolved_database_url)
    database = Database(settings().resolved_database_url)
    with database.write() as session:
        keys.add_tenant(session, "lab")
    yield database
    database.close()
    settings.cache_clear()


@pytest.fixture
def run(database: Database) -> Run:
    def run(*words: str) -> str:
        done = CliRunner().invoke(cli, ["admin", "member", *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    return run


def test_operator_invites_looks_and_removes(database: Database, run: Run) -> None:
    said = run("add", "lab", "Ann@acme.example", "--role", "admin")
    assert "ann@acme.example is admin of lab as soon as they sign in" in said
    assert "invited" in run("list")
    with database.write() as session:
        members.sign_in(session, Identity("https://id.example", "1", "ann@acme.example", "Ann A.", {}), {})
    assert run("add", "lab", "ann@acme.example").startswith("ann@acme.example is member of lab.\n")
    line = run("list", "lab")
    assert all(word in line for word in ("lab", "ann@acme.example", "Ann A.", "member"))
    assert "ann@acme.example is no member of lab any more (mem_" in run("remove", "lab", "ann@acme.example")
    assert "ended" in run("list")


def test_an_invitation_that_nobody_can_take_up_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "PUBLISHER_OIDC_ISSUER is not set" in run("add", "lab", "ann@acme.example")
    monkeypatch.setenv("PUBLISHER_OIDC_ISSUER", "https://id.example")
    monkeypatch.setenv("PUBLISHER_OIDC_CLIENT_ID", "loram")
    settings.cache_clear()
    assert "PUBLISHER_OIDC_ISSUER" not in run("add", "lab", "bob@acme.example")


def test_tenant_that_does_not_exist_is_named_with_where_they_are_listed(run: Run) -> None:
    with pytest.raises(NotFound, match="publisher admin tenant list"):
        run("add", "lap", "ann@acme.example")


def test_roles_say_what_they_open(run: Run) -> None:
    said = run("add", "--help")
    assert all(word in said for word in ("viewer", "member", "admin", "look at everything"))

"""`publisher admin member`, against the database of the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from publisher.client.main import cli
from publisher.errors import NotFound
from publisher.keys.text import new_key
from publisher.people.identity import Identity
from publisher.people.roles import Role
from publisher.settings import settings
from publisher.store import keys, members, migrate
from publisher.store.database import Database
from publisher.store.tenants import find_tenant

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


@pytest.mark.parametrize("revoke", [False, True])
def test_keys_that_who_leaves_has_made_are_named_and_end_if_asked(database: Database, run: Run, revoke: bool) -> None:
    with database.write() as session:
        tenant = find_tenant(session, "lab")
        row = members.add(session, "lab", "ann@acme.example", Role.ADMIN)

        def key(name: str, maker: str | None, expires_at: float | None = None) -> str:
            made = keys.add_key(session, tenant.id, name, new_key(), maker, expires_at=expires_at)
            return made.id

        others = key("the operator's", None)
        hers = key("hers", row.id)
        by_hers = key("by hers", hers)
        over = key("over", row.id, expires_at=1.0)
    said = run("remove", "lab", "ann@acme.example", *(["--revoke-keys"] if revoke else []))
    assert f"('hers'), which they made, {'is revoked' if revoke else 'goes on'}" in said
    assert (f"publisher admin key revoke {by_hers}" in said) != revoke
    assert "over" not in said
    with database.read() as session:
        works = {id for id in (others, hers, by_hers, over) if keys.active_key_and_tenant(session, id) is not None}
    assert works == ({others} if revoke else {others, hers, by_hers})


def test_the_last_key_that_can_make_others_stays_and_is_named(database: Database, run: Run) -> None:
    with database.write() as session:
        tenant = find_tenant(session, "lab")
        row = members.add(session, "lab", "ann@acme.example", Role.ADMIN)
        last = keys.add_key(session, tenant.id, "hers", new_key(), row.id).id
    assert f"goes on as the last that can make others: publisher admin key revoke {last}" in run(
        "remove", "lab", "ann@acme.example", "--revoke-keys"
    )
    with database.read() as session:
        assert keys.active_key_and_tenant(session, last) is not None


def test_keys_of_an_earlier_stay_end_as_well(database: Database, run: Run) -> None:
    with database.write() as session:
        row = members.add(session, "lab", "ann@acme.example", Role.ADMIN)
        keys.add_key(session, row.tenant_id, "the operator's", new_key())
        first = keys.add_key(session, row.tenant_id, "hers", new_key(), row.id).id
    assert "goes on" in run("remove", "lab", "ann@acme.example")
    run("add", "lab", "ann@acme.example")
    run("remove", "lab", "ann@acme.example")
    assert "is revoked" in run("remove", "lab", "ann@acme.example", "--revoke-keys")
    with database.read() as session:
        assert keys.active_key_and_tenant(session, first) is None

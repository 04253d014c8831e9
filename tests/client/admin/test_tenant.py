"""`publisher admin tenant` and `key`: what an operator does for teams."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.client.admin.key import expiry
from publisher.errors import Conflict, NotFound, RequestFault
from publisher.hub.faults import BadRequest
from publisher.jobs import service
from publisher.keys.digests import KeyDigests, secret_id
from publisher.keys.scopes import ALL, Scope
from publisher.keys.text import is_damaged
from publisher.store import keys, namespaces, tenants
from publisher.store.models import Job, Tenant
from publisher.store.states import JobState
from tests.client.admin.installed import Installed
from tests.jobs.rows import add_job, claim, load


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Installed]:
    made = Installed.make(tmp_path / "data")
    yield made
    made.database.close()


def tenant_named(at: Installed, name: str) -> Tenant:
    with at.database.write() as session:
        return tenants.find_tenant(session, name)


def test_a_tenant_has_the_namespace_of_its_name(at: Installed) -> None:
    at.said("tenant", "create", "vision")
    with at.database.read() as session:
        assert namespaces.namespaces_of(session, tenant_named(at, "vision").id) == ["vision"]
    assert "namespaces: vision" in at.said("tenant", "list")


@pytest.mark.parametrize("name", ["", "a b", "api", "-x", "a/b", "ü"])
def test_a_name_that_can_be_no_namespace_is_refused(at: Installed, name: str) -> None:
    with at.database.read() as session:
        before = len(tenants.all_tenants(session))
    assert "cannot be a namespace" in str(at.run("tenant", "create", "--", name).exception)
    with at.database.read() as session:
        assert len(tenants.all_tenants(session)) == before


def test_names_are_given_once_and_must_exist(at: Installed) -> None:
    at.said("tenant", "create", "vision")
    assert isinstance(at.run("tenant", "create", "vision").exception, Conflict)
    assert isinstance(at.run("tenant", "suspend", "visoin").exception, NotFound)
    assert isinstance(at.run("tenant", "grant", "vision", "datasets").exception, BadRequest)


def test_a_mistyped_folder_is_no_new_installation(tmp_path: Path, at: Installed) -> None:
    elsewhere = Installed(tmp_path / "dta", at.database, at.settings)
    assert "no installation" in str(elsewhere.run("tenant", "list").exception)
    assert not (tmp_path / "dta").exists()


def test_a_key_is_shown_once_and_opens_what_it_is_for(at: Installed) -> None:
    at.said("tenant", "create", "vision")
    done = at.run(
        "key", "create", "--tenant", "vision", "--scope", "models:read", "--scope", "hub:write", "--expires", "2d"
    )
    key = done.stdout.strip()
    assert not is_damaged(key)
    secret = at.settings.secret_bytes()
    with at.database.read() as session:
        found = keys.key_and_tenant(session, key, KeyDigests([secret]))
        assert found is not None
        row, tenant = found
    assert tenant.name == "vision"
    assert row.rights == {Scope.MODELS_READ, Scope.HUB_READ, Scope.HUB_WRITE}
    assert row.secret_id == secret_id(secret)
    assert row.expires_at == pytest.approx(time.time() + 2 * 86400, abs=60)
    listed = at.said("key", "list", "--tenant", "vision")
    assert row.id in listed
    assert key not in listed
    at.said("key", "revoke", row.id)
    with at.database.read() as session:
        assert keys.key_and_tenant(session, key, KeyDigests([secret])) is None


def test_a_key_without_scopes_may_do_all(at: Installed) -> None:
    at.said("tenant", "create", "vision")
    key = at.run("key", "create", "--tenant", "vision").stdout.strip()
    with at.database.read() as session:
        found = keys.key_and_tenant(session, key, KeyDigests([at.settings.secret_bytes()]))
        assert found is not None
        assert found[0].rights == ALL
    assert "no scope" in str(at.run("key", "create", "--tenant", "vision", "--scope", "models:all").exception)


def test_a_machine_without_the_services_secret_makes_keys_that_the_service_knows(at: Installed) -> None:
    at.said("tenant", "create", "vision")
    secret = at.settings.secret_bytes()
    (at.data / "secret").unlink()
    key = at.run("key", "create", "--tenant", "vision").stdout.strip()
    assert not (at.data / "secret").exists()
    with at.database.read() as session:
        assert keys.key_and_tenant(session, key, KeyDigests([secret])) is not None


def test_an_end_is_days_from_now_or_a_date() -> None:
    assert expiry("90d", 1000.0) == 1000 + 90 * 86400
    assert expiry("2027-01-31", 0.0) == 1801353600
    for wrong in ("soon", "90", "1970-01-01", "0d"):
        with pytest.raises(RequestFault):
            expiry(wrong, 1000.0)


def test_namespaces_are_granted_and_taken_back(at: Installed) -> None:
    for name in ("vision", "speech"):
        at.said("tenant", "create", name)
    at.said("tenant", "grant", "vision", "models-of-all")
    refusal = at.run("tenant", "grant", "speech", "models-of-all").exception
    assert "ungrant vision models-of-all" in str(refusal)
    assert isinstance(at.run("tenant", "ungrant", "speech", "models-of-all").exception, NotFound)
    at.said("tenant", "ungrant", "vision", "models-of-all")
    at.said("tenant", "grant", "speech", "models-of-all")
    with at.database.read() as session:
        assert namespaces.namespaces_of(session, tenant_named(at, "speech").id) == ["models-of-all", "speech"]


def test_folders_of_a_tenant_are_kept_shown_and_given_up(at: Installed, tmp_path: Path) -> None:
    at.said("tenant", "create", "vision")
    (tmp_path / "srv").mkdir()
    assert str(tmp_path / "srv") in at.said("tenant", "roots", "vision", str(tmp_path / "srv"))
    assert tenant_named(at, "vision").local_roots == [str(tmp_path / "srv")]
    assert str(tmp_path / "srv") in at.said("tenant", "roots", "vision")
    at.said("tenant", "roots", "vision", "--none")
    assert tenant_named(at, "vision").local_roots == []
    at.said("tenant", "roots", "vision", "--default")
    assert tenant_named(at, "vision").local_roots is None


def test_folders_with_the_services_own_data_and_relative_ones_are_refused(at: Installed, tmp_path: Path) -> None:
    at.said("tenant", "create", "vision")
    for wrong in ("models", str(tmp_path), str(at.data), "/"):
        assert isinstance(at.run("tenant", "roots", "vision", wrong).exception, RequestFault)
    assert tenant_named(at, "vision").local_roots is None


def test_suspended_jobs_pause_and_wait_and_resumed_ones_go_on(at: Installed) -> None:
    queued, running, by_hand = (add_job(at.database) for _ in range(3))
    with at.database.write() as session:
        tenant = session.get_one(Tenant, session.get_one(Job, running).tenant_id)
        for id in (queued, by_hand):
            session.get_one(Job, id).tenant_id = tenant.id
    claim(at.database, running)
    with at.database.write() as session:
        service.pause(session, by_hand)
    at.said("tenant", "suspend", tenant.name)
    assert [load(at.database, id).state for id in (queued, running, by_hand)] == [
        JobState.QUEUED, JobState.PAUSING, JobState.PAUSED,
    ]  # fmt: skip
    assert "suspended since" in at.said("tenant", "list")
    at.said("tenant", "suspend", tenant.name)
    at.said("tenant", "resume", tenant.name)
    assert [load(at.database, id).state for id in (queued, running, by_hand)] == [
        JobState.QUEUED, JobState.RUNNING, JobState.PAUSED,
    ]  # fmt: skip

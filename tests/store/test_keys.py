"""Keys: kept as digests, good until they are revoked, and the first one made once."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from publisher.store import keys, tenants
from publisher.store.database import Database, clock, database_now
from publisher.store.models import ApiKey, AuditEntry, Tenant
from tests.store.rows import Owner, add_owner

KEY = "loram_key-of-mine"


@pytest.fixture
def owner(database: Database) -> Owner:
    with database.write() as session:
        add_owner(session, "other")
        return add_owner(session, "mine")


def tenant_of(session: Session, key: str) -> Tenant | None:
    found = keys.key_and_tenant(session, key)
    return None if found is None else found[1]


def key_of(session: Session, key: str) -> ApiKey | None:
    found = keys.key_and_tenant(session, key)
    return None if found is None else found[0]


def revoke(database: Database, id: str) -> None:
    with database.write() as session:
        keys.revoke(session, session.get_one(ApiKey, id))


def test_key_opens_its_tenant(database: Database, owner: Owner) -> None:
    with database.read() as session:
        tenant, row = tenant_of(session, KEY), key_of(session, KEY)
        assert tenant is not None
        assert row is not None
        assert (tenant.id, row.id) == (owner.tenant_id, owner.key)
        active = keys.active_key_and_tenant(session, owner.key)
        assert active is not None
        assert [each.id for each in active] == [owner.key, owner.tenant_id]


@pytest.mark.parametrize(
    "key", ["", "loram_", KEY[:-1], KEY.upper(), f"{KEY} ", hashlib.sha256(KEY.encode()).hexdigest()]
)
def test_any_other_text_opens_nothing(database: Database, owner: Owner, key: str) -> None:
    """Not the digest either, by which the table knows the key."""
    with database.read() as session:
        assert keys.key_and_tenant(session, key) is None


def test_revoked_key_opens_nothing_and_others_stay(database: Database, owner: Owner) -> None:
    with database.write() as session:
        keys.add_key(session, owner.tenant_id, "second", "loram_second")
        assert keys.active_keys(session, owner.tenant_id) == 2
    revoke(database, owner.key)
    with database.read() as session:
        assert keys.key_and_tenant(session, KEY) is None
        assert keys.active_key_and_tenant(session, owner.key) is None
        assert tenant_of(session, "loram_second") is not None
        assert keys.active_keys(session, owner.tenant_id) == 1
        revoked_at = session.get_one(ApiKey, owner.key).revoked_at
        assert revoked_at == pytest.approx(session.scalar(select(database_now())), abs=60)


def test_a_key_is_revoked_once_however_often_it_is_asked_for(database: Database, owner: Owner) -> None:
    revoke(database, owner.key)
    with database.read() as session:
        before = session.get_one(ApiKey, owner.key).revoked_at
    revoke(database, owner.key)
    with database.read() as session:
        assert session.get_one(ApiKey, owner.key).revoked_at == before
        told = select(AuditEntry).where(AuditEntry.action == "key.revoke", AuditEntry.resource == owner.key)
        assert len(session.scalars(told).all()) == 1


def test_revoked_key_cannot_be_given_out_again(database: Database, owner: Owner) -> None:
    revoke(database, owner.key)
    with pytest.raises(IntegrityError), database.write() as session:
        keys.add_key(session, owner.tenant_id, "again", KEY)


def test_of_a_key_its_sha256_and_first_letters_are_kept(database: Database, owner: Owner) -> None:
    with database.read() as session:
        row = session.get_one(ApiKey, owner.key)
    assert row.digest == hashlib.sha256(KEY.encode()).hexdigest()
    assert KEY.startswith(row.prefix)
    assert len(row.prefix) < len(KEY) / 2 + 4


def test_new_keys_are_long_and_never_alike() -> None:
    made = {keys.new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(len(key) >= 7 + 43 for key in made)


def test_first_key_is_made_once(database: Database) -> None:
    first = keys.ensure_first_key(database)
    assert first is not None
    assert keys.ensure_first_key(database) is None
    with database.read() as session:
        tenant = tenant_of(session, first)
        assert tenant is not None
        assert tenant.name == keys.FIRST_TENANT
        assert session.scalar(select(func.count()).select_from(ApiKey)) == 1


def test_no_first_key_where_there_is_a_tenant(database: Database, owner: Owner) -> None:
    assert keys.ensure_first_key(database) is None
    with database.read() as session:
        assert session.scalar(select(Tenant.id).where(Tenant.name == keys.FIRST_TENANT)) is None


def test_chosen_key_joins_the_first_tenant_once_and_stays_revoked(database: Database) -> None:
    first = keys.ensure_first_key(database)
    assert first is not None
    for _ in range(2):
        assert keys.ensure_first_key(database, "loram_chosen") is None
    with database.read() as session:
        chosen, row = tenant_of(session, "loram_chosen"), key_of(session, "loram_chosen")
        before = tenant_of(session, first)
        assert chosen is not None
        assert before is not None
        assert row is not None
        assert chosen.id == before.id
        assert keys.active_keys(session, chosen.id) == 2
    revoke(database, row.id)
    assert keys.ensure_first_key(database, "loram_chosen") is None
    with database.read() as session:
        assert tenant_of(session, "loram_chosen") is None


def test_processes_that_start_at_once_make_one_tenant(database: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: keys.ensure_first_key(database), range(4)))
    assert len([key for key in made if key is not None]) == 1
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Tenant)) == 1


def test_of_two_last_keys_that_are_revoked_at_once_one_stays(
    database: Database, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.write() as session:
        second = keys.add_key(session, owner.tenant_id, "second", "loram_second").id
    count, both_counted = keys.active_keys, threading.Barrier(2)

    def and_meet(session: Session, tenant_id: str) -> int:
        counted = count(session, tenant_id)
        with suppress(threading.BrokenBarrierError):
            both_counted.wait(timeout=0.2)
        return counted

    def revoke_last(id: str) -> bool:
        with database.write() as session:
            return keys.revoke_unless_last(session, session.get_one(ApiKey, id))

    monkeypatch.setattr(keys, "active_keys", and_meet)
    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(revoke_last, [owner.key, second])) == [False, True]
    with database.read() as session:
        assert count(session, owner.tenant_id) == 1


def test_streams_stay_open_to_keys_that_work_of_tenants_that_are_not_suspended(
    database: Database, owner: Owner
) -> None:
    with database.write() as session:
        late = keys.add_key(session, owner.tenant_id, "late", "loram_late", expires_at=clock(session) - 1).id
        early = keys.add_key(session, owner.tenant_id, "early", "loram_early", expires_at=clock(session) + 3600).id
        gone = keys.add_key(session, owner.tenant_id, "gone", "loram_gone").id
        keys.revoke(session, session.get_one(ApiKey, gone))
        other = session.scalars(select(ApiKey.id).where(ApiKey.tenant_id != owner.tenant_id)).one()
        every = {owner.key, late, early, gone, other, "key_nobody"}
        assert keys.open_to(session, every) == {owner.key, early, other}
        tenants.suspend(session, session.get_one(Tenant, owner.tenant_id))
        session.flush()
        assert keys.open_to(session, every) == {other}


def test_an_expired_key_opens_nothing(database: Database, owner: Owner) -> None:
    with database.write() as session:
        late = keys.add_key(session, owner.tenant_id, "late", "loram_late", expires_at=clock(session) - 1)
        assert keys.key_and_tenant(session, "loram_late") is None
        assert keys.active_key_and_tenant(session, late.id) is None

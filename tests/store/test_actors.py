"""Whoever acts for a tenant has a name: its keys and members, and nobody else's."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from publisher.errors import NotFound
from publisher.store import keys
from publisher.store.actors import names_of
from publisher.store.database import Database
from publisher.store.models import ApiKey, Membership, Person
from tests.store.rows import Owner, add_owner


def add_member(session: Session, tenant_id: str, name: str) -> str:
    person = Person(issuer="https://id.example", subject=name, name=name)
    session.add(person)
    session.flush()
    row = Membership(tenant_id=tenant_id, person_id=person.id, role="admin")
    session.add(row)
    session.flush()
    return row.id


@pytest.fixture
def owner(database: Database) -> Owner:
    with database.write() as session:
        add_member(session, add_owner(session, "other").tenant_id, "Stranger")
        return add_owner(session, "mine")


def test_names_are_those_of_the_tenants_keys_and_members(database: Database, owner: Owner) -> None:
    with database.write() as session:
        ann = add_member(session, owner.tenant_id, "Ann")
        session.add(Membership(tenant_id=owner.tenant_id, email="bob@example.org", role="viewer"))
    with database.read() as session:
        found = names_of(session, owner.tenant_id)
        strangers = [row.id for row in session.query(Membership) if row.id not in found]
        assert sorted(found.values()) == sorted(["Ann", "bob@example.org", session.get_one(ApiKey, owner.key).name])
        assert names_of(session, owner.tenant_id, [ann, None, "operator", *strangers]) == {ann: "Ann"}


def test_a_members_key_does_not_end_by_itself_and_an_admin_ends_any(database: Database, owner: Owner) -> None:
    with database.write() as session:
        ann = add_member(session, owner.tenant_id, "Ann")
        row = keys.add_key(session, owner.tenant_id, "short", "loram_other", owner.key, expires_at=4e9)
        assert keys.end_of(session, owner.tenant_id, ann) is None
        assert keys.end_of(session, owner.tenant_id, row.id) == 4e9
        assert keys.may_revoke(session, ann, session.get_one(ApiKey, owner.key))


def test_a_stranger_neither_makes_nor_ends(database: Database, owner: Owner) -> None:
    with database.write() as session:
        stranger = add_member(session, add_owner(session, "third").tenant_id, "Carl")
        with pytest.raises(NotFound):
            keys.end_of(session, owner.tenant_id, stranger)

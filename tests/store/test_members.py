"""Memberships: invitations, rules, and what the operator takes away, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from publisher.api.authentication import Caller, still_allowed
from publisher.errors import NotFound, RequestFault
from publisher.people.identity import Identity
from publisher.people.roles import Role
from publisher.store import keys, members
from publisher.store.audit import AuditFilters, all_entries
from publisher.store.database import Database
from publisher.store.models import Person

ANN = "ann@acme.example"


def somebody(subject: str = "1", email: str | None = ANN) -> Identity:
    return Identity("https://id.example", subject, email, "Ann", {"sub": subject})


def told_of(database: Database, id: str) -> list[dict[str, object]]:
    """What the audit log has of a membership being made or changed."""
    with database.read() as session:
        return [row.details for row in all_entries(session, AuditFilters(action="member.add", resource=id))]


@pytest.fixture
def tenants(database: Database) -> dict[str, str]:
    """Name → id."""
    with database.write() as session:
        return {name: keys.add_tenant(session, name).id for name in ("a", "b")}


def add(database: Database, who: str = ANN, role: Role = Role.MEMBER, tenant: str = "a") -> str:
    with database.write() as session:
        return members.add(session, tenant, who, role).id


def remove(database: Database, who: str = ANN, tenant: str = "a") -> None:
    with database.write() as session:
        members.remove(session, tenant, who)


def enter(database: Database, someone: Identity, rules: Mapping[str, Role] | None = None) -> dict[str, str]:
    """Name of tenant → role."""
    with database.write() as session:
        return {row.tenant.name: row.role for row in members.sign_in(session, someone, rules or {})}


def counts(database: Database, id: str) -> bool:
    with database.read() as session:
        one = members.standing_one(session, id) is not None
        assert members.still_standing(session, [id]) == ({id} if one else set())
        return one


def test_an_invitation_counts_when_its_address_comes(database: Database, tenants: dict[str, str]) -> None:
    id = add(database, " Ann@Acme.example ")
    assert not counts(database, id)
    assert enter(database, somebody(email=None)) == {}
    assert enter(database, somebody()) == {"a": "member"}
    assert counts(database, id)
    assert enter(database, somebody(email="new@acme.example")) == {"a": "member"}  # who, not which address
    assert enter(database, somebody("2")) == {}


def test_inviting_again_changes_the_role_and_keeps_the_session(database: Database, tenants: dict[str, str]) -> None:
    id = add(database)
    enter(database, somebody())
    assert add(database, role=Role.VIEWER) == id
    assert add(database, id, Role.ADMIN) == id
    assert counts(database, id)
    assert enter(database, somebody()) == {"a": "admin"}
    assert add(database, role=Role.ADMIN) == id  # as it is: no change, and none in the audit log
    assert told_of(database, id) == [{"role": role} for role in ("member", "viewer", "admin")]


def test_rules_follow_the_claims_and_stay_below_the_operators_word(database: Database, tenants: dict[str, str]) -> None:
    assert enter(database, somebody(), {"a": Role.VIEWER, "gone": Role.ADMIN}) == {"a": "viewer"}
    assert enter(database, somebody(), {"a": Role.ADMIN, "b": Role.VIEWER}) == {"a": "admin", "b": "viewer"}
    assert enter(database, somebody(), {"b": Role.MEMBER}) == {"b": "member"}
    assert enter(database, somebody()) == {}
    add(database, role=Role.VIEWER)
    assert enter(database, somebody(), {"a": Role.ADMIN}) == {"a": "viewer"}
    assert enter(database, somebody()) == {"a": "viewer"}


def test_an_invitation_takes_the_place_of_a_rule(database: Database, tenants: dict[str, str]) -> None:
    enter(database, somebody(email=None), {"a": Role.VIEWER})
    add(database, role=Role.ADMIN)
    assert enter(database, somebody(), {"a": Role.VIEWER}) == {"a": "admin"}
    assert enter(database, somebody()) == {"a": "admin"}
    with database.read() as session:
        assert len(members.members(session)) == 1


def test_an_end_stands_above_rules_and_old_sessions_stay_ended(database: Database, tenants: dict[str, str]) -> None:
    id = add(database)
    enter(database, somebody())
    remove(database)
    assert not counts(database, id)
    assert enter(database, somebody(), {"a": Role.ADMIN}) == {}
    anew = add(database)
    assert not counts(database, id)
    # whoever comes with the address next: the provider may know her under another subject by now
    assert enter(database, somebody("2")) == {"a": "member"}
    assert counts(database, anew)
    assert not counts(database, id)


def test_a_member_without_an_address_is_named_by_id(database: Database, tenants: dict[str, str]) -> None:
    enter(database, somebody(email=None), {"a": Role.VIEWER})
    with database.read() as session:
        (row,) = members.members(session, "a")
    remove(database, row.id)
    assert enter(database, somebody(email=None), {"a": Role.VIEWER}) == {}
    anew = add(database, row.id, Role.MEMBER)
    assert anew != row.id
    assert counts(database, anew)


def test_what_is_not_there_is_named(database: Database, tenants: dict[str, str]) -> None:
    with database.write() as session:
        with pytest.raises(NotFound, match=r"no tenant 'c'"):
            members.add(session, "c", ANN, Role.MEMBER)
        with pytest.raises(NotFound, match=r"is no member of 'a'"):
            members.remove(session, "a", ANN)
        for wrong in ("ann", "ann@", "@acme.example", "a b@acme.example", "ann@localhost", "a\x00@acme.example"):
            with pytest.raises(RequestFault, match="no e-mail address"):
                members.add(session, "a", wrong, Role.MEMBER)


def test_one_tenants_members_cannot_be_ended_from_another(database: Database, tenants: dict[str, str]) -> None:
    id = add(database)
    enter(database, somebody())
    for who in (id, ANN):
        with pytest.raises(NotFound):
            remove(database, who, "b")
    assert counts(database, id)


def test_streams_end_with_the_membership_they_stand_on(database: Database, tenants: dict[str, str]) -> None:
    id = add(database)
    enter(database, somebody())
    with database.write() as session:
        key = keys.add_key(session, tenants["a"], "k", keys.new_key()).id
    callers = {Caller(tenants["a"], "a", id), Caller(tenants["a"], "a", key), Caller(tenants["a"], "a", "mem_no")}
    with database.read() as session:
        assert {one.key_id for one in still_allowed(session, callers)} == {id, key}
    remove(database)
    with database.read() as session:
        assert {one.key_id for one in still_allowed(session, callers)} == {key}


def test_one_person_who_signs_in_twice_at_once_is_one_person(database: Database, tenants: dict[str, str]) -> None:
    add(database)
    start = threading.Barrier(4)

    def attempt() -> dict[str, str]:
        start.wait()
        try:
            return enter(database, somebody(), {"b": Role.VIEWER})
        except IntegrityError:  # as the dashboard does
            return enter(database, somebody(), {"b": Role.VIEWER})

    with ThreadPoolExecutor(4) as pool:
        found = [attempt.result() for attempt in [pool.submit(attempt) for _ in range(4)]]
    assert found == [{"a": "member", "b": "viewer"}] * 4
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Person)) == 1

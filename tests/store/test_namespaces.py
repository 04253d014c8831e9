"""Namespaces and tenants that two operators make at the same moment: one of them does, and the other is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from publisher.errors import Conflict
from publisher.store import namespaces, tenants
from publisher.store.database import Database
from publisher.store.keys import add_tenant
from publisher.store.models import AuditEntry, HubNamespace
from tests.store.at_once import at_once


def granting(name: str, namespace: str) -> Callable[[Session], object]:
    return lambda session: namespaces.grant(session, namespace, tenants.find_tenant(session, name))


def actions(database: Database, resource: str) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(AuditEntry.action).where(AuditEntry.resource == resource)))


@pytest.mark.parametrize("taken_back", [False, True])
def test_of_two_grants_at_once_one_is_refused(database: Database, taken_back: bool) -> None:
    with database.write() as session:
        owners = {add_tenant(session, name).id: name for name in ("vision", "speech")}
        if taken_back:
            session.add(HubNamespace(namespace="lab", tenant_id=None, granted_at=0.0))
    said = at_once(database, granting("vision", "lab"), granting("speech", "lab"))
    (refusal,) = [each for each in said if each is not None]
    with database.read() as session:
        owner = session.get_one(HubNamespace, "lab").tenant_id
    assert isinstance(refusal, Conflict)
    assert f"tenant {owners[str(owner)]!r}'s" in str(refusal)
    assert actions(database, "lab") == ["namespace.grant"]


def test_of_two_that_take_back_at_once_one_finds_nothing(database: Database) -> None:
    with database.write() as session:
        namespaces.grant(session, "lab", add_tenant(session, "vision"))
        vision = tenants.find_tenant(session, "vision")

    def taking_back(session: Session) -> object:
        return namespaces.ungrant(session, "lab", vision)

    said = at_once(database, taking_back, taking_back)
    assert sorted(type(each).__name__ for each in said) == ["NoneType", "NotFound"]
    assert actions(database, "lab") == ["namespace.grant", "namespace.ungrant"]


def test_of_two_tenants_of_one_name_at_once_one_is_refused(database: Database) -> None:
    def creating(session: Session) -> object:
        return tenants.create_tenant(session, "vision").id

    said = at_once(database, creating, creating)
    (made,) = [each for each in said if isinstance(each, str)]
    assert [type(each) for each in said if each != made] == [Conflict]
    assert actions(database, made) == ["tenant.create"]

"""What two delete at the same moment goes once, and one of them is told."""

from __future__ import annotations

from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.orm import Session

from publisher.errors import NotFound
from publisher.signing.keyring import Keyring
from publisher.store import deletion, hub_credentials
from publisher.store.database import Database
from publisher.store.keys import add_tenant
from publisher.store.models import AuditEntry, Sweep
from publisher.store.tenancy import owned
from tests.store.at_once import at_once


def told(database: Database, action: str) -> int:
    with database.read() as session:
        return len(session.scalars(select(AuditEntry).where(AuditEntry.action == action)).all())


def test_a_sweep(database: Database) -> None:
    with database.write() as session:
        tenant_id = add_tenant(session, "vision").id
        sweep = Sweep(tenant_id=tenant_id, request={}, request_digest="0" * 64)
        session.add(sweep)

    def deleting(session: Session) -> object:
        return deletion.delete_sweep(session, owned(session, Sweep, tenant_id, sweep.id))

    said = at_once(database, deleting, deleting)
    assert [type(each) for each in said if each is not None] == [NotFound]
    assert told(database, "sweep.delete") == 1


def test_a_hub_of_ones_own(database: Database) -> None:
    with database.write() as session:
        tenant_id, token = add_tenant(session, "vision").id, SecretStr("hf_the-token")
        hub_credentials.put(
            *(session, Keyring(b"k" * 32), tenant_id, "https://hub.example"),
            **{"write_token": token, "read_token": None, "set_by": "key_1"},
        )

    def deleting(session: Session) -> object:
        return hub_credentials.delete(session, tenant_id)

    assert sorted(map(str, at_once(database, deleting, deleting))) == ["False", "True"]
    assert told(database, "hub_credential.delete") == 1

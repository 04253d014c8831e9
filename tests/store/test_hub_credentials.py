"""Tokens of tenants' Hubs lie sealed, each for its tenant, and are sealed anew when a secret is replaced."""

from __future__ import annotations

import secrets

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from publisher.errors import CredentialFault
from publisher.settings import Settings
from publisher.signing.keyring import Keyring
from publisher.store import hub_credentials, keys, sealed
from publisher.store.database import Database
from publisher.store.models import HubCredential

OLD, NEW = b"the old one, 32 bytes or so, ...", b"the new one, 32 bytes or so, ..."
WRITE, READ = "hf_write-token-of-the-tenant", "hf_read-token-of-the-tenant"


def given(database: Database, keyring: Keyring, read: str | None = READ) -> str:
    """The id of a new tenant with a Hub."""
    with database.write() as session:
        tenant = keys.add_tenant(session, secrets.token_hex(6)).id
        hub_credentials.put(
            session,
            keyring,
            tenant,
            "https://hub.example",
            write_token=SecretStr(WRITE),
            read_token=None if read is None else SecretStr(read),
            set_by="key_1",
        )
    return tenant


def opened(database: Database, tenant: str, keyring: Keyring) -> str:
    with database.read() as session:
        return hub_credentials.opened(session.get_one(HubCredential, tenant), keyring).write_token


def test_tokens_are_in_no_column_and_no_repr(database: Database) -> None:
    tenant = given(database, Keyring(NEW))
    with database.read() as session:
        row = session.execute(text("SELECT * FROM hub_credentials")).one()
        assert WRITE not in str(row)
        assert READ not in str(row)
        assert row.write_token_end == WRITE[-4:]
        found = hub_credentials.opened(session.get_one(HubCredential, tenant), Keyring(NEW))
    assert found.write_token == WRITE
    assert WRITE not in repr(found)


def test_the_read_token_is_the_tenants_and_else_the_services(database: Database, settings: Settings) -> None:
    changes = {"secret": SecretStr(NEW.decode()), "base_model_token": SecretStr("hf_service")}
    chosen = settings.model_copy(update=changes)
    with_one, without = given(database, Keyring(NEW)), given(database, Keyring(NEW), read=None)
    with database.read() as session:
        assert hub_credentials.read_token(session, chosen, with_one) == READ
        assert hub_credentials.read_token(session, chosen, without) == "hf_service"
        assert hub_credentials.read_token(session, settings, "ten_nobody") is None


def test_a_row_that_was_copied_to_another_tenant_opens_nothing(database: Database) -> None:
    mine, other = given(database, Keyring(NEW)), given(database, Keyring(NEW))
    with database.write() as session:
        stolen = session.get_one(HubCredential, mine).write_token
        session.get_one(HubCredential, other).write_token = stolen
    with pytest.raises(CredentialFault, match="cannot be opened"):
        opened(database, other, Keyring(NEW))


def test_rotating_seals_all_under_the_newest_and_the_old_one_can_go(database: Database) -> None:
    tenant, later = given(database, Keyring(OLD)), given(database, Keyring(NEW), read=None)
    with database.write() as session:
        done = sealed.reseal(session, Keyring(NEW, OLD))
    assert (done.values, done.others, done.lost) == (2, 1, ())
    assert opened(database, tenant, Keyring(NEW)) == opened(database, later, Keyring(NEW)) == WRITE
    with pytest.raises(CredentialFault):
        opened(database, tenant, Keyring(OLD))
    with database.write() as session:
        assert sealed.reseal(session, Keyring(NEW, OLD)).values == 0
        assert sealed.count_by_secret(session) == {Keyring(NEW).newest.id: 3}


def test_rotating_names_what_no_secret_opens_and_leaves_it(database: Database) -> None:
    tenant = given(database, Keyring(OLD))
    with database.write() as session:
        assert sealed.reseal(session, Keyring(NEW)).lost == (tenant,)
    assert opened(database, tenant, Keyring(OLD)) == WRITE


def test_what_cannot_be_opened_names_secrets_by_ids(database: Database) -> None:
    tenant = given(database, Keyring(OLD))
    with pytest.raises(CredentialFault) as refused:
        opened(database, tenant, Keyring(NEW))
    assert Keyring(OLD).newest.id in str(refused.value)
    assert Keyring(NEW).newest.id in str(refused.value)


def test_uses_are_noted_at_most_once_a_minute(database: Database) -> None:
    tenant = given(database, Keyring(NEW))
    seen = []
    for _ in range(2):
        with database.write() as session:
            hub_credentials.note_use(session, tenant)
        with database.read() as session:
            seen.append(session.get_one(HubCredential, tenant).used_at)
    assert seen[0] is not None
    assert seen[0] == seen[1]

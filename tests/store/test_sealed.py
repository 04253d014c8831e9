"""All that lies sealed comes under the newest secret: what the register lacks would be lost with the old one."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from publisher.settings import Settings
from publisher.store import sealed, webhooks
from publisher.store.database import Database
from publisher.store.models import Table, Webhook
from tests.store.rows import add_owner

OLD, NEW = "the old one, 32 bytes or so, ...", "the new one, 32 bytes or so, ..."


def test_a_webhooks_secrets_are_sealed_anew(database: Database, tmp_path: Path) -> None:
    before = Settings(data_dir=tmp_path, secret=SecretStr(OLD))
    after = Settings(data_dir=tmp_path, secret=SecretStr(NEW), old_secrets=SecretStr(OLD))
    with database.write() as session:
        row = session.get_one(Webhook, add_owner(session, "org").webhook)
        row.secret, row.previous_secret = (webhooks.sealer(before).seal(text, row.id) for text in ("now", "then"))
    with database.write() as session:
        assert sealed.reseal(session, after.sealing_secrets()).values == 2
    alone = webhooks.sealer(Settings(data_dir=tmp_path, secret=SecretStr(NEW)))
    with database.read() as session:
        row = session.get_one(Webhook, row.id)
        assert [alone.open(each or "", row.id) for each in (row.secret, row.previous_secret)] == ["now", "then"]


def test_every_column_that_sounds_like_it_is_in_the_register() -> None:
    registered = {(column.table.__tablename__, column.name) for column in sealed.SEALED}
    #: digests, fingerprints and ids of secrets, numbers of leases: none can be opened
    others = {("api_keys", "secret_id"), ("service_processes", "secrets"), ("jobs", "lease_token")}
    sounding = {
        (table.name, column.name)
        for table in Table.metadata.tables.values()
        for column in table.columns
        if ("secret" in column.name or "token" in column.name) and not column.name.endswith("_end")
    }
    assert sounding - others == registered

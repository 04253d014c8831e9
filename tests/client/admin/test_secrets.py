"""`publisher admin secrets`: a secret is replaced step by step, and nothing that was sealed is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr

from publisher.client.main import cli
from publisher.keys.digests import KeyDigests
from publisher.settings import Settings, settings
from publisher.signing.keyring import Keyring
from publisher.store import hub_credentials, keys, migrate
from publisher.store.database import Database
from publisher.store.models import HubCredential

OLD, NEW = "the old one, 32 bytes or so, ...", "the new one, 32 bytes or so, ..."
OLD_ID, NEW_ID = (Keyring(each.encode()).newest.id for each in (OLD, NEW))


@pytest.fixture
def tenant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its token is sealed under the old secret, of an installation in `tmp_path`."""
    monkeypatch.setenv("PUBLISHER_DATA_DIR", str(tmp_path))
    chosen = Settings(data_dir=tmp_path, secret=SecretStr(OLD))
    migrate.upgrade(chosen.resolved_database_url)
    database = Database(chosen.resolved_database_url)
    with database.write() as session:
        made = keys.add_tenant(session, "org").id
        keys.add_key(session, made, "ci", "loram_some-key", digests=KeyDigests([OLD.encode()]))
        token = SecretStr("hf_the-token")
        keyring = chosen.sealing_secrets()
        hub_credentials.put(
            session, keyring, made, "https://hub.example", write_token=token, read_token=token, set_by="key_1"
        )
    database.close()
    return made


def test_a_restore_counts_what_needs_a_secret_that_the_settings_lack(
    tmp_path: Path, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a backup that was taken in the middle of a rotation: it brings the newest secret alone."""
    monkeypatch.setenv("PUBLISHER_SECRET", NEW)
    for command in (
        ["backup", str(tmp_path / "kept")],
        ["restore", str(tmp_path / "kept"), "--data", str(tmp_path / "b")],
    ):
        settings.cache_clear()
        done = CliRunner().invoke(cli, ["admin", *command])
        assert done.exit_code == 0, (done.output, done.exception)
    settings.cache_clear()
    assert f"keys: {OLD_ID}  1 keys, which open nothing" in done.stderr
    assert f"seal: {OLD_ID}  2 values" in done.stderr


def secrets_command(monkeypatch: pytest.MonkeyPatch, name: str, newest: str, *older: str) -> Result:
    monkeypatch.setenv("PUBLISHER_SECRET", newest)
    monkeypatch.setenv("PUBLISHER_OLD_SECRETS", "\n".join(older))
    settings.cache_clear()
    try:
        done = CliRunner().invoke(cli, ["admin", "secrets", name])
    finally:
        settings.cache_clear()
    assert "32 bytes or so" not in done.output + str(done.exception)
    return done


def opened(tmp_path: Path, tenant: str, secret: str) -> str:
    chosen = Settings(data_dir=tmp_path, secret=SecretStr(secret))
    database = Database(chosen.resolved_database_url)
    with database.read() as session:
        row = session.get_one(HubCredential, tenant)
        found = hub_credentials.opened(row, chosen.sealing_secrets()).write_token
    database.close()
    return found


def test_a_secret_is_replaced_and_the_old_one_taken_away(
    tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = secrets_command(monkeypatch, "show", NEW, OLD).output
    assert f"sign: {NEW_ID}  signs, {OLD_ID}  is accepted" in shown
    assert f"{OLD_ID}  2 values" in shown
    assert f"keys: {OLD_ID}  1 keys\n" in shown
    assert f"2 values were sealed under {NEW_ID}" in secrets_command(monkeypatch, "rotate", NEW, OLD).output
    assert f"{OLD_ID}  0 values" in secrets_command(monkeypatch, "show", NEW, OLD).output
    assert opened(tmp_path, tenant, NEW) == "hf_the-token"


def test_a_secret_that_was_taken_away_too_early_is_named(
    tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = secrets_command(monkeypatch, "show", NEW).output
    assert f"{OLD_ID}  2 values, and this secret is not among" in shown
    assert f"{OLD_ID}  1 keys, which open nothing" in shown
    refused = secrets_command(monkeypatch, "rotate", NEW)
    assert refused.exit_code == 1
    assert tenant in str(refused.exception)
    assert opened(tmp_path, tenant, OLD) == "hf_the-token"

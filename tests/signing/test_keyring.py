"""A secret is replaced while what was made under it is still about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from publisher.dashboard.session import Sessions
from publisher.hub.faults import Forbidden
from publisher.hub.links import UploadLinks
from publisher.hub.names import RepositoryId
from publisher.jobs.leases import Lease
from publisher.jobs.tokens import JobToken, read_job_token, sign_job_token
from publisher.settings import Settings
from publisher.signing.keyring import Keyring, Secret
from publisher.signing.signer import Signer

OLD, NEW = b"the old one, 32 bytes or so, ...", b"the new one, 32 bytes or so, ..."
REPO = RepositoryId.parse("org/model")


def link_is_good(signing: bytes | Keyring, checking: bytes | Keyring) -> bool:
    query = UploadLinks(signing).path(REPO, "0" * 64, 1, expires=4_000_000_000).rpartition("signature=")[2]
    try:
        UploadLinks(checking).check(REPO, "0" * 64, size=1, expires=4_000_000_000, signature=query)
    except Forbidden:
        return False
    return True


def session_is_good(signing: bytes | Keyring, checking: bytes | Keyring) -> bool:
    cookie = Sessions(signing, secure=False).seal("key_1")
    form = Sessions(signing, secure=False).csrf(cookie)
    reader = Sessions(checking, secure=False)
    opened = reader.open(cookie) is not None
    assert reader.is_genuine(form, cookie) is opened
    return opened


def token_is_good(signing: bytes | Keyring, checking: bytes | Keyring) -> bool:
    return read_job_token(checking, sign_job_token(signing, Lease("job_1", 2))) == JobToken("job_1", 2)


@pytest.mark.parametrize("is_good", [link_is_good, session_is_good, token_is_good])
def test_what_the_old_secret_signed_is_good_until_it_is_taken_away(
    is_good: Callable[[bytes | Keyring, bytes | Keyring], bool],
) -> None:
    both = Keyring(NEW, OLD)
    assert is_good(OLD, both)
    assert is_good(both, both)
    assert is_good(both, NEW)
    assert not is_good(both, OLD)
    assert not is_good(OLD, NEW)


@pytest.mark.parametrize("is_good", [link_is_good, session_is_good, token_is_good])
def test_processes_may_learn_of_the_new_secret_before_any_signs_by_it(
    is_good: Callable[[bytes | Keyring, bytes | Keyring], bool],
) -> None:
    """As PUBLISHER_OLD_SECRETS of all, first; then machines change over one by one and understand each other."""
    told, changed = Keyring(OLD, NEW), Keyring(NEW, OLD)
    assert is_good(told, changed)
    assert is_good(changed, told)


@pytest.mark.parametrize("signature", [b"", b"x", b"\x00" * 32])
def test_what_is_no_signature_is_not_genuine(signature: bytes) -> None:
    assert not Signer(Keyring(NEW, OLD), "kind").is_genuine("text", signature)


def test_secrets_are_known_by_ids_that_do_not_tell_them() -> None:
    ring = Keyring(NEW, OLD, NEW)
    ids = [secret.id for secret in ring]
    assert len(ids) == len(set(ids)) == 2
    assert ring.find(ids[1]) == Secret(OLD)
    assert ring.find("00000000") is None
    for text in (repr(ring), str(ring), repr(ring.newest), f"{ring.newest}"):
        assert ids[0] in text
        assert "new one" not in text


def test_settings_name_older_secrets_one_a_line(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, secret=SecretStr("new"), old_secrets=SecretStr("older\n\n oldest \n"))
    assert [secret.value for secret in settings.signing_secrets()] == [b"new", b"older", b"oldest"]
    assert settings.sealing_secrets().newest == settings.signing_secrets().newest


def test_a_key_of_its_own_seals_and_the_signing_secrets_open_what_was_sealed_before(tmp_path: Path) -> None:
    given = {"secret": SecretStr("new"), "old_secrets": SecretStr("old"), "old_encryption_keys": SecretStr("key 1")}
    with_key = Settings(data_dir=tmp_path, encryption_key=SecretStr("key 2 of 16 bytes"), **given)
    assert [secret.value for secret in with_key.sealing_secrets()] == [b"key 2 of 16 bytes", b"key 1", b"new", b"old"]
    taken_away = Settings(data_dir=tmp_path, **given)
    assert [secret.value for secret in taken_away.sealing_secrets()] == [b"new", b"key 1", b"old"]


def test_a_secret_that_was_made_at_the_first_start_is_replaced_by_moving_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Settings(data_dir=tmp_path).signing_secrets()
    (tmp_path / "secret").rename(tmp_path / "old-secret")
    monkeypatch.setenv("PUBLISHER_OLD_SECRETS_FILE", str(tmp_path / "old-secret"))
    after = Settings(data_dir=tmp_path).signing_secrets()
    assert after.newest != before.newest
    assert before.newest in list(after)


def test_an_encryption_key_that_can_be_guessed_is_refused_and_an_empty_one_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError, match="32 random") as refused:
        Settings(data_dir=tmp_path, encryption_key=SecretStr("hunter2"))
    assert "hunter2" not in str(refused.value)
    monkeypatch.setenv("PUBLISHER_ENCRYPTION_KEY", "")
    assert Settings(data_dir=tmp_path).encryption_key is None

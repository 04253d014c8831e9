"""The key that checkpoints are signed with: what is taken, and that nothing shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, SECP384R1
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from publisher.client.up import Supervisor
from publisher.configuration.signing_key import ModelKey, public_key_id
from publisher.errors import RequestFault
from publisher.settings import Settings, settings
from tests.checkpoint.published import make_keys


def test_a_key_is_known_by_its_public_half_and_not_shown(tmp_path: Path) -> None:
    keys = make_keys(tmp_path, curve=SECP384R1())
    assert keys.key.id == public_key_id(keys.public.read_bytes(), "")
    assert "PRIVATE" not in repr(keys.key)
    assert keys.key.pem == keys.private.read_text()


def rsa() -> str:
    made = generate_private_key(public_exponent=65537, key_size=2048)
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_other_keys_are_refused_in_words_that_quote_nothing(tmp_path: Path) -> None:
    private = make_keys(tmp_path).private.read_text()
    locked = load_pem_private_key(private.encode(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    for pem, said in (
        (private[:80], "holds no private key as PEM"),
        (locked.decode(), "has a passphrase"),
        (rsa(), "of no curve of secp256r1"),
    ):
        with pytest.raises(RequestFault, match=said) as refused:
            ModelKey.read(pem, "FILE")
        assert pem.splitlines()[1][:20] not in str(refused.value)
    with pytest.raises(RequestFault, match="of no curve of secp256r1"):
        make_keys(tmp_path, "other", SECP256K1())
    with pytest.raises(RequestFault, match="holds no public key"):
        public_key_id(private.encode(), "FILE")


def test_settings_take_it_from_a_file_and_do_not_show_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = make_keys(tmp_path)
    monkeypatch.setenv("PUBLISHER_SIGNING_KEY_FILE", str(keys.private))
    found = Settings(data_dir=tmp_path)
    assert found.signing_key is not None
    assert ModelKey.read(found.signing_key.get_secret_value(), "").id == keys.key.id
    secret = keys.private.read_text().splitlines()[1]
    assert secret not in repr(found)
    assert secret in found.secret_texts()  # taken out of whatever a job says
    (tmp_path / "empty").touch()
    monkeypatch.setenv("PUBLISHER_SIGNING_KEY_FILE", str(tmp_path / "empty"))
    assert Settings(data_dir=tmp_path).signing_key is None


def test_a_wrong_key_ends_a_process_at_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLISHER_SIGNING_KEY", "no key at all")
    settings.cache_clear()
    with pytest.raises(RequestFault, match="PUBLISHER_SIGNING_KEY: it holds no private key as PEM") as refused:
        settings()
    assert "at all" not in str(refused.value)
    settings.cache_clear()


def test_only_the_worker_of_up_gets_it(tmp_path: Path) -> None:
    commands = {
        name: ["sh", "-c", f'echo "${{PUBLISHER_SIGNING_KEY_FILE:-none}}" > {tmp_path / name}']
        for name in ("api", "worker")
    }
    supervisor = Supervisor(commands, {"PUBLISHER_SIGNING_KEY_FILE": "key.pem", "PATH": "/usr/bin:/bin"})
    supervisor.start()
    for process in supervisor._processes.values():
        process.wait(timeout=30)
    assert [(tmp_path / name).read_text() for name in ("api", "worker")] == ["none\n", "key.pem\n"]


def test_of_a_file_with_other_text_the_key_alone_is_kept(tmp_path: Path) -> None:
    """What goes to the signing library goes through a pipe, which holds 64 KiB before anybody reads it."""
    keys = make_keys(tmp_path)
    read = ModelKey.read("# a note\n" * 20_000 + keys.private.read_text() + "# another\n", "a file")
    assert (read, "note" in read.pem) == (keys.key, False)

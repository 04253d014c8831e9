"""What is signed for one purpose is worth nothing for another."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode

import pytest

from publisher.dashboard.attempts import Attempts
from publisher.dashboard.session import Sessions
from publisher.hub.links import UploadLinks
from publisher.hub.names import RepositoryId
from publisher.jobs.leases import Lease
from publisher.jobs.tokens import JobToken, read_job_token, sign_job_token
from publisher.signing.signer import Signer, same

SECRET = b"s" * 32


def test_signature_is_hmac_sha256_of_salt_and_text() -> None:
    assert Signer(SECRET, "kind").sign("text") == hmac.new(SECRET, b"kind:text", hashlib.sha256).digest()


def test_secret_salt_and_text_all_count() -> None:
    signed = {
        Signer(secret, salt).sign(text) for secret in (SECRET, b"t" * 32) for salt in ("a", "b") for text in ("x", "y")
    }
    assert len(signed) == 8


def test_no_salt_can_be_read_as_another_and_a_part_of_the_text() -> None:
    with pytest.raises(AssertionError):
        Signer(SECRET, "a:b")


def test_comparison_takes_whatever_a_client_sends() -> None:
    assert same("äß", "äß")
    assert not same("äß", "as")


def test_each_kind_of_signature_has_a_salt_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    salts: list[str] = []
    plain = Signer.__init__

    def noting(self: Signer, secret: bytes, salt: str) -> None:
        salts.append(salt)
        plain(self, secret, salt)

    monkeypatch.setattr(Signer, "__init__", noting)
    Sessions(SECRET, secure=False).seal("key_1")
    UploadLinks(SECRET).path(RepositoryId.parse("org/model"), "0" * 64, 1)
    sign_job_token(SECRET, Lease("job_1", 1))
    Attempts(SECRET, secure=False)
    assert len(salts) == len(set(salts)) == 5


def test_tokens_and_sessions_of_releases_before_stay_good() -> None:
    """A job that runs while the service is replaced publishes with the token that it was given before."""
    claims = urlsafe_b64encode(json.dumps(["ten_1", "job_1", 4e9]).encode()).rstrip(b"=").decode()
    digest = hmac.digest(SECRET, b"job-token:" + claims.encode(), hashlib.sha256)
    token = f"lpj_{claims}.{urlsafe_b64encode(digest).rstrip(b'=').decode()}"
    assert read_job_token(SECRET, token) == JobToken("job_1", None)
    expected = hmac.digest(SECRET, b"dashboard session:key_1.4000000000", hashlib.sha256).hex()
    opened = Sessions(SECRET, secure=False).open(f"key_1.4000000000.{expected}")
    assert opened is not None
    assert (opened.stands_on, opened.expires) == ("key_1", 4e9)

"""Signatures of the service: one secret signs several kinds of text, and each kind's are good for that kind alone."""

from __future__ import annotations

import hashlib
import hmac

from publisher.signing.keyring import Keyring


class Signer:
    """HMAC-SHA256 under the newest of the secrets; what an older one signed is genuine, too, until that is taken away.

    `salt` names what is signed; it holds no colon, which ends it.
    """

    def __init__(self, secret: bytes | Keyring, salt: str) -> None:
        assert ":" not in salt, salt
        self._secrets, self._salt = Keyring.of(secret), f"{salt}:"

    def sign(self, text: str) -> bytes:
        """32 bytes."""
        return self._under(self._secrets.newest.value, text)

    def signatures(self, text: str) -> list[bytes]:
        """Under each secret, the newest first: to look a digest up by."""
        return [self._under(secret.value, text) for secret in self._secrets]

    def is_genuine(self, text: str, signature: bytes) -> bool:
        """Whether one of the secrets signed it so."""
        return any(hmac.compare_digest(signature, each) for each in self.signatures(text))

    def _under(self, secret: bytes, text: str) -> bytes:
        return hmac.digest(secret, (self._salt + text).encode(), hashlib.sha256)


def unhex(text: str) -> bytes:
    """A signature as it is written in hex digits; one that nothing is genuine with where that is not what it is."""
    try:
        return bytes.fromhex(text) if text == text.lower() else b""
    except ValueError:
        return b""


def same(one: str, other: str) -> bool:
    """Compare signatures as they are written, in a time that tells nothing of where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def fingerprint(secret: bytes) -> str:
    """16 hex digits by which two places find out whether they have the same secret, and which tell nothing of it."""
    return Signer(secret, "fingerprint").sign("").hex()[:16]

"""Secrets that the database keeps: sealed with a key that is made from the service's secret, so that rows alone tell
nothing."""

from __future__ import annotations

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION = "v1."
_NONCE_BYTES = 12


class CannotUnseal(Exception):
    """Sealed with another secret, for something else, or damaged."""


def seal(secret: bytes, purpose: str, text: str) -> str:
    """`text`, readable again with the same `secret` (the service's) and `purpose`
    (`webhook hook_0192…`: whose it is)."""
    nonce = os.urandom(_NONCE_BYTES)
    sealed = nonce + _cipher(secret).encrypt(nonce, text.encode(), purpose.encode())
    return _VERSION + base64.b64encode(sealed).decode()


def unseal(secret: bytes, purpose: str, sealed: str) -> str:
    """Raises CannotUnseal."""
    try:
        if not sealed.startswith(_VERSION):
            raise ValueError("of another version")
        raw = base64.b64decode(sealed.removeprefix(_VERSION), validate=True)
        return _cipher(secret).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], purpose.encode()).decode()
    except (InvalidTag, ValueError, binascii.Error) as error:
        raise CannotUnseal(f"{purpose}: what is sealed cannot be read with the service's secret") from error


def _cipher(secret: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, salt=None, info=b"loram-publisher: sealed in the database").derive(secret))

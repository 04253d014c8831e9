"""Values that lie encrypted where others may read: in a column of the database, in a backup.

AES-256-GCM (NIST SP 800-38D) under a key that HKDF (RFC 5869) derives from the newest secret, one for each purpose.
What the value belongs to is authenticated with it: a sealed value that somebody copied to another row opens nothing.
"""

from __future__ import annotations

import base64
import binascii
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from publisher.signing.keyring import Keyring, Secret

_FORM = "v1"
_NONCE_BYTES = 12


class Sealer:
    """`purpose` names the kind of value, as a Signer's salt does."""

    def __init__(self, secret: bytes | Keyring, purpose: str) -> None:
        assert ":" not in purpose, purpose
        self._secrets, self._purpose = Keyring.of(secret), purpose

    def seal(self, text: str, owner: str) -> str:
        """`v1.<id of the secret>.<nonce and ciphertext in base64url>`, which opens only for `owner`."""
        secret, nonce = self._secrets.newest, secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher(secret).encrypt(nonce, text.encode(), self._bound_to(owner))
        return f"{_FORM}.{secret.id}.{base64.urlsafe_b64encode(sealed).decode()}"

    def open(self, sealed: str, owner: str) -> str | None:
        """None if it was sealed under a secret that is not there, for another owner or purpose, or was changed."""
        form, _, rest = sealed.partition(".")
        id, _, text = rest.partition(".")
        secret = self._secrets.find(id)
        if form != _FORM or secret is None:
            return None
        try:
            data = base64.urlsafe_b64decode(text)
            opened = self._cipher(secret).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], self._bound_to(owner))
            return opened.decode()
        except (InvalidTag, ValueError, binascii.Error):
            return None

    def is_newest(self, sealed: str) -> bool:
        """Whether it is sealed under the newest secret already."""
        return sealed.startswith(f"{_FORM}.{self._secrets.newest.id}.")

    def _cipher(self, secret: Secret) -> AESGCM:
        info = f"publisher sealed values:{self._purpose}".encode()
        return AESGCM(HKDF(SHA256(), length=32, salt=None, info=info).derive(secret.value))

    def _bound_to(self, owner: str) -> bytes:
        return f"{self._purpose}:{owner}".encode()


def secret_id(sealed: str) -> str:
    """The id of the secret that a value is sealed under."""
    return sealed.split(".")[1] if sealed.count(".") == 2 else ""

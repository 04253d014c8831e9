"""What is kept of an API key: HMAC-SHA256 under a key derived from the service's secret.

Whoever reads the database alone can neither use nor test keys. Beside each digest stands the short id of its secret, so
that secrets can be changed: keys are found under every secret that still counts, and kept anew under the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from publisher.signing.signer import Signer


@dataclass(frozen=True)
class Digest:
    """`secret_id`: which secret it was made with; None: with none, as before there were HMACs."""

    value: str
    secret_id: str | None


class KeyDigests:
    """Digests under these secrets, the current one first; under none of them: the bare sha256 of before."""

    def __init__(self, secrets: Sequence[bytes] = ()) -> None:
        self._signers = [(secret_id(secret), Signer(secret, "api key")) for secret in secrets]

    def current(self, key: str) -> Digest:
        """What is kept of a new key."""
        return self.candidates(key)[0]

    def candidates(self, key: str) -> list[Digest]:
        """All by which the key may be known, the current one first."""
        keyed = [Digest(signer.sign(key).hex(), id) for id, signer in self._signers]
        return [*keyed, Digest(hashlib.sha256(key.encode()).hexdigest(), None)]


#: without a secret: what databases of before hold
UNKEYED = KeyDigests()


def secret_id(secret: bytes) -> str:
    """Eight hex digits that tell secrets apart and say nothing of them."""
    return Signer(secret, "secret id").sign("").hex()[:8]

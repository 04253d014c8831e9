"""Secrets of one kind: the newest makes what is new, older ones are still good for what was made under them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Secret:
    """Never shown: neither by repr nor by str. `id` is."""

    value: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Eight hex digits that tell secrets apart and give nothing away."""
        return hmac.digest(self.value, b"secret id:", hashlib.sha256).hex()[:8]

    def __repr__(self) -> str:
        return f"Secret({self.id})"


class Keyring:
    """`newest` first. The same secret twice counts once."""

    def __init__(self, newest: bytes, *older: bytes) -> None:
        self._secrets = [Secret(value) for value in dict.fromkeys((newest, *older))]

    @classmethod
    def of(cls, secret: bytes | Keyring) -> Keyring:
        return secret if isinstance(secret, Keyring) else cls(secret)

    @property
    def newest(self) -> Secret:
        return self._secrets[0]

    def find(self, id: str) -> Secret | None:
        return next((secret for secret in self._secrets if secret.id == id), None)

    def __iter__(self) -> Iterator[Secret]:
        return iter(self._secrets)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(secret.id for secret in self._secrets)})"

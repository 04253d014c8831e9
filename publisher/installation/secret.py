"""Whether two places sign alike, told by fingerprints of their secrets."""

from __future__ import annotations

from publisher.settings import Settings
from publisher.signing.signer import fingerprint


def fingerprints(settings: Settings) -> list[str]:
    """Of the secret that signs, and then of any others whose signatures are good, too."""
    return [fingerprint(secret.value) for secret in settings.signing_secrets()]


def agree(one: list[str], other: list[str]) -> bool:
    """Whether each accepts what the other signs: so it is in the middle of a replacement, too."""
    return one[0] in other and other[0] in one

"""Who a provider of identities says that somebody is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: characters of what a provider says that are kept
_MOST = 255


@dataclass(frozen=True)
class Identity:
    """`issuer` and `subject` together are somebody for good. `email`: lower-case, None unless the provider has verified
    that it is theirs; `called`: for greetings alone, since people choose it themselves."""

    issuer: str
    subject: str
    email: str | None
    called: str
    claims: Mapping[str, Any]


def identity(issuer: str, claims: Mapping[str, Any]) -> Identity:
    """From an ID token's claims, which have been checked."""
    names = (claims.get(name) for name in ("name", "preferred_username", "email"))
    called = next((name for name in names if isinstance(name, str) and printed(name).strip()), claims["sub"])
    return Identity(issuer, claims["sub"], verified_email(claims), printed(called).strip()[:_MOST], claims)


def printed(text: str) -> str:
    """Without what no database takes and no page should show: NUL, halves of surrogate pairs, marks that turn text."""
    return "".join(letter for letter in text if letter.isprintable())


def is_subject(sub: object) -> bool:
    """OpenID Connect Core 1.0, section 2: what names somebody for good."""
    return isinstance(sub, str) and 0 < len(sub) <= _MOST and sub.isprintable()


def verified_email(claims: Mapping[str, Any]) -> str | None:
    """None without a word of the provider that it is verified: anybody could claim another one's."""
    email, verified = claims.get("email"), claims.get("email_verified")
    # Amazon Cognito writes the boolean as text
    if not isinstance(email, str) or (verified is not True and verified != "true"):
        return None
    return normal_email(email)


def normal_email(email: str) -> str | None:
    """As addresses are compared; None for what is none."""
    name, at, domain = email.strip().lower().rpartition("@")
    fits = name and at and "." in domain and len(email) <= _MOST and email.strip().isprintable() and " " not in name
    return f"{name}@{domain}" if fits else None

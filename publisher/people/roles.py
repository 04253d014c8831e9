"""What a person may do in a tenant: each role is declared once, with the scopes that an API key would need for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

READ = "models:read"
WRITE_VARIANTS = "variants:write"
ALL_SCOPES = frozenset({READ, "models:write", WRITE_VARIANTS, "hub:read", "hub:write", "admin"})


class Role(StrEnum):
    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"

    @property
    def scopes(self) -> frozenset[str]:
        return _DECLARED[self].scopes

    @property
    def may(self) -> str:
        """What the role opens, in words."""
        return _DECLARED[self].may

    def or_higher(self, other: Role) -> Role:
        """The one of both that may do more."""
        return max(self, other, key=lambda role: len(role.scopes))


@dataclass(frozen=True)
class _Declared:
    may: str
    scopes: frozenset[str]


#: each includes the one before
_DECLARED = {
    Role.VIEWER: _Declared("look at everything", frozenset({READ, "hub:read"})),
    Role.MEMBER: _Declared("order variants, steer jobs", ALL_SCOPES - {"admin"}),
    Role.ADMIN: _Declared("everything in the tenant", ALL_SCOPES),
}


def rights_of(role: str) -> frozenset[str]:
    """Of a stored role; one that only a later version knows gives nothing."""
    return Role(role).scopes if role in set(Role) else frozenset()

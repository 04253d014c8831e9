"""What a person may do in a tenant: each role is declared once, with the scopes that an API key would need for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from publisher.keys.scopes import ALL, Scope


class Role(StrEnum):
    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"

    @property
    def scopes(self) -> frozenset[Scope]:
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
    scopes: frozenset[Scope]


#: each includes the one before
_DECLARED = {
    Role.VIEWER: _Declared("look at everything", frozenset({Scope.MODELS_READ, Scope.HUB_READ})),
    Role.MEMBER: _Declared("order variants, steer jobs", ALL - {Scope.ADMIN}),
    Role.ADMIN: _Declared("everything in the tenant", ALL),
}


def rights_of(role: str) -> frozenset[Scope]:
    """Of a stored role; one that only a later version knows gives nothing."""
    return Role(role).scopes if role in set(Role) else frozenset()

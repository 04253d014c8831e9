"""Which of a provider's people belong to which tenant without an invitation: rules of the settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from publisher.people.identity import Identity
from publisher.people.roles import Role


class Rule(BaseModel):
    """Whoever has `value` as or in `claim`, or a verified e-mail address of `email_domain`, has `role` in `tenant`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: str | None = Field(default=None, min_length=1, description="name of a claim; dots lead into objects")
    value: str | None = Field(default=None, min_length=1, description="what the claim is, or has among its values")
    email_domain: str | None = Field(default=None, min_length=3, description="what follows the @, exactly")
    tenant: str = Field(min_length=1, description="name of a tenant")
    role: Role = Field(default=Role.VIEWER, description="what they may do")

    @field_validator("email_domain")
    @classmethod
    def _lower_case(cls, domain: str | None) -> str | None:
        return None if domain is None else domain.removeprefix("@").lower()

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if (self.claim is None) != (self.value is None) or (self.claim is None) == (self.email_domain is None):
            raise ValueError("a rule has either claim and value, or email_domain")
        return self

    def covers(self, someone: Identity) -> bool:
        if self.claim is not None:
            found = claim_of(someone.claims, self.claim)
            # a list holds groups; of text only the whole counts: "admins" is not in "no-admins"
            return self.value in found if isinstance(found, list) else found == self.value
        return someone.email is not None and someone.email.rpartition("@")[2] == self.email_domain


def claim_of(claims: Mapping[str, Any], name: str) -> Any:
    """`groups`, `https://example.org/groups`, or `realm_access.roles` inside of an object; None if there is none."""
    if name in claims:
        return claims[name]
    first, _, rest = name.partition(".")
    inside = claims.get(first)
    return claim_of(inside, rest) if rest and isinstance(inside, Mapping) else None


def granted(rules: Iterable[Rule], someone: Identity) -> dict[str, Role]:
    """Name of tenant → role, the highest where several rules say something."""
    roles: dict[str, Role] = {}
    for rule in rules:
        if rule.covers(someone):
            roles[rule.tenant] = rule.role.or_higher(roles.get(rule.tenant, rule.role))
    return roles

"""API keys in requests and answers."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field, field_validator

from publisher.api.one_line import LETTER
from publisher.errors import RequestFault
from publisher.keys.scopes import Scope, ends_within


class ApiKeyRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "ci", "scopes": ["models:read"]}]}
    )

    name: str = Field(min_length=1, max_length=100, pattern=rf"^{LETTER}+$", description="to tell keys apart, one line")
    scopes: list[Scope] | None = Field(
        default=None, min_length=1, max_length=20, description="what it may do; null: what the key may that makes it"
    )
    expires_at: float | None = Field(
        default=None,
        ge=0,
        le=1e11,
        description="seconds since 1970, ahead of now; null: with the key that makes it, or when it is revoked",
    )

    def expiry(self, now: float, makers: float | None) -> float | None:
        """`makers`, that of the key that makes it, if none is asked for. RequestFault for a time that has passed,
        OutlivesMaker for a later one than `makers`; `now` in seconds since 1970."""
        if self.expires_at is not None and self.expires_at <= now:
            raise RequestFault(
                f"expires_at {self.expires_at:.0f} has passed: it is {now:.0f}.",
                field="expires_at",
                way_out="Give seconds since 1970, ahead of now.",
            )
        return ends_within(self.expires_at, makers)


class ApiKeyAnswer(BaseModel):
    model_config = ConfigDict(from_attributes=True, populate_by_name=True)

    id: str = Field(description="names the key; not the key itself")
    name: str = Field(description="to tell keys apart")
    prefix: str = Field(description="the key's first characters")
    created_at: float = Field(description="seconds since 1970")
    revoked_at: float | None = Field(description="seconds since 1970; null while the key works")
    expires_at: float | None = Field(description="seconds since 1970; null: until it is revoked")
    last_used_at: float | None = Field(
        description="seconds since 1970, a minute old at most while it is in use; null: not since this was noted"
    )
    scopes: list[str] = Field(description="what it may do, with what its scopes include", validation_alias="rights")
    created_by: str | None = Field(
        description="the key that made it, or a person's membership (mem_…); null: the service's operator"
    )

    @field_validator("scopes", mode="before")
    @classmethod
    def _sorted(cls, rights: Iterable[str]) -> list[str]:
        return sorted(rights)


class NewApiKeyAnswer(ApiKeyAnswer):
    key: str = Field(description="the key itself; shown this once")


class MeAnswer(BaseModel):
    """Whose key was sent."""

    tenant_id: str = Field(description="whose resources it sees")
    tenant_name: str = Field(description="the tenant's namespace on the embedded Hub, too")
    key_id: str = Field(description="names the key; not the key itself")
    key_name: str = Field(description="to tell keys apart")
    scopes: list[str] = Field(description="what it may do, with what its scopes include")
    expires_at: float | None = Field(description="seconds since 1970; null: until it is revoked")

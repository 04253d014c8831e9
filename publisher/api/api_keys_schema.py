"""API keys in requests and answers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ApiKeyRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "ci"}]})

    name: str = Field(
        min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", description="to tell keys apart, one line"
    )


class ApiKeyAnswer(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="names the key; not the key itself")
    name: str = Field(description="to tell keys apart")
    prefix: str = Field(description="the key's first characters")
    created_at: float = Field(description="seconds since 1970")
    revoked_at: float | None = Field(description="seconds since 1970; null while the key works")
    created_by: str | None = Field(description="the key that made it; null: the service's operator")


class NewApiKeyAnswer(ApiKeyAnswer):
    key: str = Field(description="the key itself; shown this once")

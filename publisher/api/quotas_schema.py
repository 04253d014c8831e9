"""Quotas in answers."""

from __future__ import annotations

from pydantic import BaseModel, Field


class QuotaAnswer(BaseModel):
    name: str = Field(description="of the quota")
    limit: int | None = Field(description="the most that there may be; null: without limit")
    used: int | None = Field(
        description="how much there is now; null: requests are counted only where there is a limit"
    )
    unit: str = Field(description="of both numbers")
    description: str = Field(description="what is counted, and what happens beyond it")


class QuotasAnswer(BaseModel):
    """What the tenant may have at once, and has."""

    items: list[QuotaAnswer] = Field(description="every quota")

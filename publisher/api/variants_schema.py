"""Variants in requests and answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from publisher.api.jobs_schema import JobAnswer
from publisher.api.plans_schema import RECIPE_EXAMPLE
from publisher.manifest.verdict import Verdict, verdict_of
from publisher.recipe import Recipe
from publisher.store import models as tables


class PublishRequest(BaseModel):
    """Where the checkpoint goes. The repository is made if it does not exist."""

    model_config = ConfigDict(extra="forbid")

    repo_id: str = Field(min_length=1, max_length=200, description="namespace/name")
    private: bool = False


class VariantRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "base_model_id": "base_…",
                    "recipe": RECIPE_EXAMPLE,
                    "publish": {"repo_id": "my-org/llama-3.1-8b-loram-0.65", "private": False},
                }
            ]
        },
    )

    base_model_id: str = Field(min_length=1, max_length=64)
    recipe: Recipe
    publish: PublishRequest

    @property
    def digest(self) -> str:
        """sha256 over what the request means: defaults written out, keys sorted."""
        meaning = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(meaning.encode()).hexdigest()


class Publication(BaseModel):
    endpoint: str
    repo_id: str
    commit: str
    url: str


class CertificateAnswer(BaseModel):
    """What the certificate says; all of it is in the manifest."""

    verdict: Verdict = Field(description="passed, or why not; not_stated by publishers that did not measure documents")
    corpus: str
    documents: int | None = Field(description="held-out documents that were measured")
    mean: float | None = Field(description="gain of the recovered adapter on the base model, nats per token")
    standard_error: float | None = Field(description="of `mean`, over documents")

    @classmethod
    def of(cls, manifest: Mapping[str, Any] | None) -> Self | None:
        """None before there is one, and where the recipe asks for no probe."""
        certificate = ((manifest or {}).get("evaluation") or {}).get("certificate")
        if certificate is None:
            return None
        found = (certificate.get("differences") or {}).get(certificate["corpus"]) or {}
        numbers = {name: found.get(name) for name in ("documents", "mean", "standard_error")}
        return cls(verdict=verdict_of(certificate), corpus=certificate["corpus"], **numbers)


class VariantSummary(BaseModel):
    """`publication` and `certificate` are there once the job has succeeded; `job` is the latest one."""

    id: str
    base_model_id: str
    recipe: Recipe
    recipe_digest: str
    publish: PublishRequest
    publication: Publication | None
    certificate: CertificateAnswer | None
    job: JobAnswer
    created_at: float = Field(description="seconds since 1970")

    @classmethod
    def of(cls, row: tables.Variant) -> Self:
        """Of a row whose jobs are loaded, or whose session is open."""
        return cls.model_validate(cls._fields(row))

    @classmethod
    def _fields(cls, row: tables.Variant) -> dict[str, Any]:
        return {
            "id": row.id,
            "base_model_id": row.base_model_id,
            "recipe": row.recipe,
            "recipe_digest": row.recipe_digest,
            "publish": {"repo_id": row.publish_repo_id, "private": row.publish_private},
            "publication": row.publication,
            "certificate": CertificateAnswer.of(row.manifest),
            "job": JobAnswer.model_validate(row.jobs[-1]),
            "created_at": row.created_at,
        }


class VariantAnswer(VariantSummary):
    manifest: dict[str, Any] | None = Field(description="the checkpoint's loram.json, once published")

    @classmethod
    def _fields(cls, row: tables.Variant) -> dict[str, Any]:
        return super()._fields(row) | {"manifest": row.manifest}


class VariantFileAnswer(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    path: str
    size: int = Field(description="bytes")
    sha256: str


class VariantFiles(BaseModel):
    items: list[VariantFileAnswer]

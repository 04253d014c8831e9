"""Variants in requests and answers."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from publisher.api.jobs_schema import JobAnswer
from publisher.api.labels import Labels
from publisher.api.plans_schema import RECIPE_EXAMPLE
from publisher.manifest.manifest import Manifest
from publisher.manifest.reports import Publication
from publisher.manifest.verdict import Verdict
from publisher.recipe import Recipe
from publisher.store import models as tables
from publisher.store.variant_content import Unreadable, manifest_of, recipe_of


class PublishRequest(BaseModel):
    """Where the checkpoint goes. The repository is made if it does not exist."""

    model_config = ConfigDict(extra="forbid")

    repo_id: str = Field(min_length=1, max_length=200, description="namespace/name")
    private: bool = Field(default=False, description="whether only its owner may see the repository")


Priority = Annotated[
    int, Field(ge=-100, le=100, description="jobs of higher priority are taken first, of equal the oldest")
]


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

    base_model_id: str = Field(min_length=1, max_length=64, description="a registered base model")
    recipe: Recipe = Field(description="how the variant is made")
    publish: PublishRequest = Field(description="where it goes")
    priority: Priority = 0
    labels: Labels = Field(default={}, description="to find it by")

    @property
    def digest(self) -> str:
        """sha256 over what the request means: defaults written out, keys sorted."""
        # requests of before said nothing of these, and their keys are remembered
        since = {name for name in ("priority", "labels") if not getattr(self, name)}
        meaning = json.dumps(self.model_dump(mode="json", exclude=since), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(meaning.encode()).hexdigest()


class CertificateAnswer(BaseModel):
    """What the certificate says; all of it is in the manifest."""

    verdict: Verdict = Field(description="passed, or why not; not_stated by publishers that did not measure documents")
    corpus: str = Field(description="whose held-out documents were measured")
    documents: int | None = Field(description="held-out documents that were measured")
    mean: float | None = Field(description="gain of the recovered adapter on the base model, nats per token")
    standard_error: float | None = Field(description="of `mean`, over documents")

    @classmethod
    def of(cls, manifest: Manifest) -> Self | None:
        """None where the recipe asks for no probe."""
        certificate = manifest.evaluation.certificate if manifest.evaluation else None
        if certificate is None:
            return None
        found = certificate.difference
        return cls(
            verdict=certificate.verdict,
            corpus=certificate.corpus,
            documents=found.documents if found else None,
            mean=found.mean if found else None,
            standard_error=found.standard_error if found else None,
        )


class VariantSummary(BaseModel):
    """`publication` and `certificate` are there once the job has succeeded; `job` is the latest one.

    A recipe that another version of the service stored is told with today's fields, and means what it meant; where that
    cannot be, `recipe` is null, `recipe_problem` says why, and `stored_recipe` is what was asked for.
    """

    id: str = Field(description="names the variant in other calls")
    base_model_id: str = Field(description="what it is made from")
    recipe: Recipe | None = Field(description="how it is made; null if it cannot be read")
    recipe_problem: str | None = Field(description="why the stored recipe cannot be read; null: it can")
    stored_recipe: dict[str, Any] | None = Field(description="as it was stored, where it cannot be read")
    recipe_digest: str = Field(description="sha256 of the recipe as it was asked for")
    publish: PublishRequest = Field(description="where it goes")
    publication: Publication | None = Field(description="where it lies; null before it is published")
    certificate: CertificateAnswer | None = Field(description="what its proof says; null without one")
    manifest_problem: str | None = Field(description="why the stored manifest cannot be read; null: it can")
    job: JobAnswer | None = Field(description="the latest that makes it; null: it was deleted")
    labels: dict[str, str] = Field(description="to find it by")
    sweep_id: str | None = Field(description="the sweep that it was made in; null: none")
    created_at: float = Field(description="seconds since 1970")

    @classmethod
    def of(cls, row: tables.Variant) -> Self:
        """Of a row whose session is open."""
        return cls.model_validate(cls._fields(row))

    @classmethod
    def _fields(cls, row: tables.Variant) -> dict[str, Any]:
        recipe, manifest = recipe_of(row), manifest_of(row)
        unread = isinstance(recipe, Unreadable)
        return {
            "id": row.id,
            "base_model_id": row.base_model_id,
            "recipe": None if unread else recipe,
            "recipe_problem": recipe.reason if isinstance(recipe, Unreadable) else None,
            "stored_recipe": row.recipe if unread else None,
            "recipe_digest": row.recipe_digest,
            "publish": {"repo_id": row.publish_repo_id, "private": row.publish_private},
            "publication": row.publication,
            "certificate": CertificateAnswer.of(manifest) if isinstance(manifest, Manifest) else None,
            "manifest_problem": manifest.reason if isinstance(manifest, Unreadable) else None,
            "job": JobAnswer.model_validate(row.jobs[-1]) if row.jobs else None,
            "labels": row.labels,
            "sweep_id": row.sweep_id,
            "created_at": row.created_at,
        }


class VariantAnswer(VariantSummary):
    manifest: dict[str, Any] | None = Field(description="the checkpoint's loram.json, once published")

    @classmethod
    def _fields(cls, row: tables.Variant) -> dict[str, Any]:
        return super()._fields(row) | {"manifest": row.manifest}


class VariantFileAnswer(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    path: str = Field(description="within the checkpoint")
    size: int = Field(description="bytes")
    sha256: str = Field(description="of the content, in hex")


class VariantFiles(BaseModel):
    items: list[VariantFileAnswer] = Field(description="by path")

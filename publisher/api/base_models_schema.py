"""Base models in requests and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from publisher.api.labels import Labels
from publisher.base_model.facts import BaseModelFacts
from publisher.errors import Conflict
from publisher.store import models as tables


class BaseModelRequest(BaseModel):
    """Either a Hub repository, pinned to the commit that `revision` points to now, or a folder of this service."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"repo_id": "meta-llama/Llama-3.1-8B", "revision": "main"},
                {"path": "/models/llama", "published_as": "meta-llama/Llama-3.1-8B"},
            ]
        },
    )

    repo_id: str | None = Field(default=None, min_length=1, max_length=200, description="repository on the Hub")
    revision: str | None = Field(default=None, min_length=1, max_length=200, description="branch, tag or commit")
    path: str | None = Field(default=None, min_length=1, max_length=4096, description="folder below an allowed root")
    published_as: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="with path: namespace/name under which others get this model; what is published calls it so",
    )
    labels: Labels = {}

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.repo_id is None) == (self.path is None):
            raise ValueError('give either "repo_id" or "path", not both and not neither')
        if self.path is not None and self.revision is not None:
            raise ValueError('"revision" belongs to "repo_id"; a folder is pinned by its content')
        if self.published_as is not None and self.path is None:
            raise ValueError('"published_as" belongs to "path"; a repository is published under its own name')
        return self


class GeometryAnswer(BaseModel):
    """Sizes of the model; `experts` per layer are 0 where there are none."""

    family: str
    hidden_size: int
    intermediate_size: int
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied_embeddings: bool
    experts: int = 0
    experts_per_token: int = 0


class BaseModelAnswer(BaseModel):
    """`revision` is a commit, or the digest of a folder's files; `bytes` is the size of the weight files."""

    id: str
    repo_id: str
    revision: str
    path: Path | None
    published_as: str | None = None
    geometry: GeometryAnswer
    parameters: int
    bytes: int
    dtype: str
    files: dict[str, int] = Field(description="bytes of each file")
    notes: list[str] = Field(
        default=[],
        description="what is read otherwise than the files say: tensors left out, an LM head that is not tied",
    )
    labels: dict[str, str]
    created_at: float = Field(description="seconds since 1970")

    @classmethod
    def of(cls, row: tables.BaseModel) -> Self:
        own = {"id": row.id, "labels": row.labels, "created_at": row.created_at}
        return cls.model_validate(row.facts | own)


def facts_of(row: tables.BaseModel) -> BaseModelFacts:
    """Raises Conflict for what a version registered that did not look at layers one by one."""
    try:
        return BaseModelFacts.model_validate(row.facts)
    except ValidationError as error:
        raise Conflict(
            f"base model {row.id} was registered by an older version of this service.",
            way_out="Delete it and register it again.",
        ) from error

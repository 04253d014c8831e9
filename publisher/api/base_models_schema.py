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

    family: str = Field(description="model_type in config.json")
    hidden_size: int = Field(description="width between layers")
    intermediate_size: int = Field(description="neurons of an MLP; 0 where there are only experts")
    layers: int = Field(description="decoder layers")
    query_heads: int = Field(description="of a layer's attention")
    kv_heads: int = Field(description="each serves query_heads / kv_heads query heads")
    head_dim: int = Field(description="numbers per head")
    vocab_size: int = Field(description="tokens that have an embedding")
    tied_embeddings: bool = Field(description="whether the LM head is the embeddings' matrix")
    experts: int = Field(default=0, description="of a layer; 0 where there are none")
    experts_per_token: int = Field(default=0, description="how many of them a token goes through")


class BaseModelAnswer(BaseModel):
    """`revision` is a commit, or the digest of a folder's files; `bytes` is the size of the weight files."""

    id: str = Field(description="names the base model in other calls")
    repo_id: str = Field(description="repository on the Hub, or the folder's path")
    revision: str = Field(description="commit; of a folder the digest of its files")
    path: Path | None = Field(description="folder; null for a repository")
    published_as: str | None = Field(default=None, description="name under which others get a folder's model")
    geometry: GeometryAnswer = Field(description="sizes of the model")
    parameters: int = Field(description="how many numbers the model has")
    bytes: int = Field(description="size of the weight files")
    dtype: str = Field(description="of most weights")
    files: dict[str, int] = Field(description="bytes of each file")
    notes: list[str] = Field(
        default=[],
        description="what is read otherwise than the files say: tensors left out, an LM head that is not tied",
    )
    labels: dict[str, str] = Field(description="to find it by")
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

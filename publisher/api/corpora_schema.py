"""Corpora in requests and answers, and what is counted of them."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from publisher.api.labels import Labels
from publisher.corpus.dataset import DOCUMENTS, MOST_DOCUMENTS, REPO_ID
from publisher.corpus.facts import CorpusFacts
from publisher.corpus.source import CorpusSource
from publisher.recipe import CorpusName
from publisher.store import models as tables

_OF_DATASETS = ("config", "split", "revision", "documents")


class CorpusRequest(BaseModel):
    """JSONL (.jsonl, .jsonl.gz), Parquet or text (.txt) files, one or a folder of them; or a dataset of the Hub."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"name": "fineweb-sample", "path": "/corpora/fineweb"},
                {"name": "fineweb", "dataset": "HuggingFaceFW/fineweb", "config": "sample-10BT", "documents": 20_000},
            ]
        },
    )

    name: CorpusName = Field(description="what recipes call it")
    path: str | None = Field(
        default=None, min_length=1, max_length=4096, description="file or folder below an allowed root"
    )
    dataset: str | None = Field(default=None, max_length=200, pattern=REPO_ID, description="owner/name on the Hub")
    config: str | None = Field(default=None, min_length=1, max_length=200, description="the dataset's configuration")
    split: str = Field(default="train", min_length=1, max_length=200, description="of the dataset; it is split again")
    revision: str | None = Field(
        default=None, min_length=1, max_length=200, description="branch, tag or commit; pinned to its commit now"
    )
    documents: int = Field(
        default=DOCUMENTS, ge=1, le=MOST_DOCUMENTS, description="rows read from the dataset's beginning, at most"
    )
    text_field: str = Field(default="text", min_length=1, max_length=200, description="column that holds the text")
    held_out_fraction: float = Field(
        default=0.1, ge=0, le=1, description="share of the documents that is only ever used for evaluation"
    )
    labels: Labels = {}

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError('give either "path" or "dataset", not both and not neither')
        misplaced = [name for name in _OF_DATASETS if name in self.model_fields_set]
        if self.path is not None and misplaced:
            raise ValueError(f'"{misplaced[0]}" belongs to "dataset"; files are read as a whole')
        return self


class CorpusAnswer(BaseModel):
    id: str = Field(description="names the corpus in other calls")
    name: str = Field(description="what recipes call it")
    path: Path | None = Field(description="null for a dataset")
    dataset: str | None = Field(default=None, description="null for files, as are the next four")
    config: str | None = Field(default=None, description="the dataset's configuration")
    split: str | None = Field(default=None, description="of the dataset")
    revision: str | None = Field(default=None, description="commit")
    documents: int | None = Field(default=None, description="rows read from the dataset's beginning, at most")
    text_field: str = Field(description="column that holds the text")
    held_out_fraction: float = Field(description="share of the documents that is only used for evaluation")
    facts: CorpusFacts | None = Field(description="null for a dataset: jobs read it, registering does not")
    labels: dict[str, str] = Field(description="to find it by")
    created_at: float = Field(description="seconds since 1970")

    @classmethod
    def of(cls, row: tables.Corpus) -> Self:
        source = source_of(row)
        told = source.model_dump(exclude={"dataset"})
        if dataset := source.dataset:
            told |= dataset.model_dump(exclude={"repo_id"}) | {"dataset": dataset.repo_id}
        own = {"id": row.id, "facts": facts_of(row), "labels": row.labels, "created_at": row.created_at}
        return cls.model_validate(told | own)


def source_of(row: tables.Corpus) -> CorpusSource:
    return CorpusSource.model_validate(row.source)


def facts_of(row: tables.Corpus) -> CorpusFacts | None:
    """None for a dataset, of which nothing was counted."""
    return CorpusFacts.model_validate(row.facts) if row.facts else None

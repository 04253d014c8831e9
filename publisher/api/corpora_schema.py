"""Corpora in requests and answers, and what is counted of them."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from publisher.corpus import CorpusSource
from publisher.recipe import CorpusName
from publisher.store import models as tables


class CorpusRequest(BaseModel):
    """JSONL (.jsonl, .jsonl.gz), Parquet or text (.txt) files, one or a folder of them."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "fineweb-sample", "path": "/corpora/fineweb"}]}
    )

    name: CorpusName = Field(description="what recipes call it")
    path: str = Field(min_length=1, max_length=4096, description="file or folder below an allowed root")
    text_field: str = Field(default="text", min_length=1, max_length=200, description="column that holds the text")
    held_out_fraction: float = Field(
        default=0.1, ge=0, le=1, description="share of the documents that is only ever used for evaluation"
    )


class CorpusFacts(BaseModel):
    """Counted by reading every document. Bytes are of the text in UTF-8."""

    documents: int
    characters: int
    train_documents: int
    train_bytes: int
    held_out_documents: int
    held_out_bytes: int
    content_digest: str = Field(description="sha256 over the files and the way they are read")


class CorpusAnswer(BaseModel):
    id: str
    name: str
    path: Path
    text_field: str
    held_out_fraction: float
    facts: CorpusFacts
    created_at: float = Field(description="seconds since 1970")

    @classmethod
    def of(cls, row: tables.Corpus) -> Self:
        return cls.model_validate(
            source_of(row).model_dump() | {"id": row.id, "facts": row.facts, "created_at": row.created_at}
        )


def source_of(row: tables.Corpus) -> CorpusSource:
    return CorpusSource.model_validate(row.source)


def facts_of(row: tables.Corpus) -> CorpusFacts:
    return CorpusFacts.model_validate(row.facts)

"""What is counted of a corpus of files, by reading every document: when it is registered, and before a build."""

from __future__ import annotations

from pydantic import BaseModel, Field

from publisher.corpus.source import CorpusSource, Split
from publisher.errors import RequestFault


class CorpusFacts(BaseModel):
    """Counted by reading every document. Bytes are of the text in UTF-8."""

    documents: int = Field(description="texts in all")
    characters: int = Field(description="of all texts")
    train_documents: int = Field(description="texts that may be trained on")
    train_bytes: int = Field(description="of these")
    held_out_documents: int = Field(description="texts that are only used for evaluation")
    held_out_bytes: int = Field(description="of these")
    is_one_document: bool = Field(
        default=False,
        description="true: its only text was cut in pieces, which the other fields count: the beginning is trained on, "
        "the end held out",
    )
    content_digest: str = Field(description="sha256 over the files and the way they are read")


def count(source: CorpusSource) -> CorpusFacts:
    """Raises RequestFault if anything of it cannot be read, or nothing of it is text."""
    digest = source.content_digest()
    documents, sizes, characters = dict.fromkeys(Split, 0), dict.fromkeys(Split, 0), 0
    division = source.division()
    for side, text in source.sides(division):
        documents[side] += 1
        sizes[side] += len(text.encode())
        characters += len(text)
    if not characters:
        raise RequestFault(f"corpus {source.name}: {source.path} holds no text.", field="path")
    return CorpusFacts(
        documents=sum(documents.values()),
        characters=characters,
        train_documents=documents[Split.TRAIN],
        train_bytes=sizes[Split.TRAIN],
        held_out_documents=documents[Split.HELD_OUT],
        held_out_bytes=sizes[Split.HELD_OUT],
        is_one_document=division.within_document,
        content_digest=digest,
    )

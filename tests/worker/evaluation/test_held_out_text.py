from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.corpus.source import CorpusSource, Split
from tests.models import byte_tokenizer
from worker.evaluation.held_out_text import count_documents, held_out_documents, shared_out
from worker.evaluation.perplexity import cut_windows, scored_tokens


def _scored(documents: list[str], length: int, limit: int) -> dict[int, int]:
    """Document → tokens that are scored of it."""
    found: dict[int, int] = {}
    for window in cut_windows(documents, byte_tokenizer(), length, limit):
        found[window.document] = found.get(window.document, 0) + window.scored
    return found


@pytest.mark.parametrize(
    ("lengths", "limit", "shares"),
    [
        ([100, 10, 100], 90, [40, 10, 40]),
        ([100, 10, 100], 91, [40, 10, 41]),
        ([5, 6, 7], 1000, [5, 6, 7]),
        ([50, 50, 50], 2, [0, 1, 1]),
        ([], 10, []),
    ],
)
def test_short_documents_are_taken_whole_and_long_ones_alike(lengths: list[int], limit: int, shares: list[int]) -> None:
    assert shared_out(lengths, limit) == shares


def test_one_long_document_does_not_take_the_limit_of_all() -> None:
    """With the default budget a book of 100,000 tokens used to be all that was measured."""
    documents = ["It is a long way. " * 2000 for _ in range(50)]
    scored = _scored(documents, 256, 16_384)
    assert len(scored) >= 32
    assert sum(scored.values()) == 16_384
    assert max(scored.values()) - min(scored.values()) <= 1


@pytest.mark.parametrize("limit", [8, 64, 1000])
def test_a_limit_below_a_window_for_each_still_measures_eight_documents(limit: int) -> None:
    scored = _scored(["It is a long way. " * 200 for _ in range(20)], 256, limit)
    assert len(scored) >= 8
    assert sum(scored.values()) == limit


def test_few_long_documents_are_read_on_until_the_limit() -> None:
    scored = _scored(["Long. " * 1000, "Short.", "Long. " * 1000], 64, 3000)
    assert scored[1] == 5
    assert sum(scored.values()) == 3000


def test_windows_are_a_document_s_beginning_without_gaps() -> None:
    documents = [f"{number} bottles of beer on the wall. " * 40 for number in range(10)]
    windows = cut_windows(documents, byte_tokenizer(), 64, 2000)
    for number, document in enumerate(documents):
        ids = [token for window in windows if window.document == number for token in window.tokens.tolist()]
        assert ids == byte_tokenizer()(document)["input_ids"][: len(ids)]
    assert scored_tokens(windows) == 2000


def test_copies_of_a_document_count_once(tmp_path: Path) -> None:
    texts = [f"Document {number % 5}." for number in range(40)]
    path = tmp_path / "copies.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    corpus = CorpusSource(name="copies", path=path, held_out_fraction=1)
    assert len(list(corpus.documents(Split.HELD_OUT))) == 40
    assert list(held_out_documents(corpus)) == texts[:5]
    assert count_documents(corpus) == 5

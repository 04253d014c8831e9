"""A text that is alone: cut where texts may be cut, in pieces that are the text again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.corpus.facts import count
from publisher.corpus.pieces import PIECES, divide
from publisher.corpus.source import CorpusSource, Split
from publisher.errors import RequestFault

PARAGRAPHS = [f"Paragraph {number}. " + "Call me Ishmael. " * 20 for number in range(400)]
NOVEL = "\n\n".join(PARAGRAPHS)


@given(st.text(alphabet="ab. \n", min_size=1, max_size=9000), st.floats(0.001, 0.999))
def test_pieces_are_the_text_again(text: str, fraction: float) -> None:
    train, held_out = divide(text, fraction)
    assert "".join(train + held_out) == text
    assert all(train + held_out)
    assert len(train) <= PIECES
    assert len(held_out) <= PIECES


@given(st.text(min_size=2, max_size=50), st.floats(0.001, 0.999))
def test_both_sides_have_something_of_the_shortest_text(text: str, fraction: float) -> None:
    train, held_out = divide(text, fraction)
    assert train
    assert held_out


def test_a_novel_is_cut_at_paragraphs_near_the_fraction() -> None:
    train, held_out = divide(NOVEL, 0.1)
    assert len(train) == PIECES
    assert 5 <= len(held_out) <= 8
    assert len("".join(held_out)) == pytest.approx(0.1 * len(NOVEL), rel=0.06)
    assert all(piece.endswith("\n\n") and piece.startswith("Paragraph ") for piece in train)
    assert all(piece.startswith("Paragraph ") for piece in held_out)
    assert not set("".join(train).split("\n\n")) & set("".join(held_out).split("\n\n")) - {""}


def test_a_corpus_of_one_document_trains_and_holds_out(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text(NOVEL)
    source = CorpusSource(name="c", path=tmp_path)
    train, held_out = list(source.documents(Split.TRAIN)), list(source.documents(Split.HELD_OUT))
    assert "".join(train + held_out) == NOVEL
    assert list(source.documents()) == [NOVEL]
    facts = count(source)
    assert facts.is_one_document
    assert (facts.train_documents, facts.held_out_documents) == (len(train), len(held_out))
    assert facts.train_bytes + facts.held_out_bytes == len(NOVEL)


@pytest.mark.parametrize(("fraction", "side"), [(0, Split.TRAIN), (1, Split.HELD_OUT)])
def test_one_document_stays_whole_where_it_is_asked_for_one_side(fraction: float, side: Split, tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text(NOVEL)
    source = CorpusSource(name="c", path=tmp_path, held_out_fraction=fraction)
    assert list(source.documents(side)) == [NOVEL]
    assert not count(source).is_one_document


@pytest.mark.parametrize("documents", range(2, 12))
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_of_few_documents_each_side_gets_one(documents: int, fraction: float, tmp_path: Path) -> None:
    for number in range(documents):
        (tmp_path / f"{number}.txt").write_text(PARAGRAPHS[number])
    facts = count(CorpusSource(name="c", path=tmp_path, held_out_fraction=fraction))
    assert facts.train_documents + facts.held_out_documents == documents
    assert min(facts.train_documents, facts.held_out_documents) >= 1


def test_a_document_that_is_there_twice_is_alone(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(NOVEL)
    source = CorpusSource(name="c", path=tmp_path)
    assert not set(source.documents(Split.TRAIN)) & set(source.documents(Split.HELD_OUT))


def test_nothing_but_blanks_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" \n\t\u2003\n")
    with pytest.raises(RequestFault, match="holds no text"):
        count(CorpusSource(name="c", path=tmp_path))

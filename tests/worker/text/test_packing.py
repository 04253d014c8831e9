from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from publisher.corpus.source import CorpusSource, Split
from publisher.errors import RequestFault
from publisher.recipe import Exhausted
from publisher.recipe.parts import split_by_weight
from tests.models import byte_tokenizer
from worker.text.packing import WeightedSource, pack_tokens, training_sequences

EOS = 257


def _corpus(folder: Path, name: str, letter: str, documents: int, length: int = 30) -> CorpusSource:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i:03}" + letter * length}) + "\n" for i in range(documents)))
    return CorpusSource(name=name, path=path)


def _count(sequences: torch.Tensor, letter: str) -> int:
    """Sequences in which `letter` is the most frequent."""
    token = byte_tokenizer()(letter)["input_ids"][0]
    return int((sequences.mode(-1).values == token).sum())


def test_packing_joins_documents_by_eos_and_drops_the_rest() -> None:
    tokenizer = byte_tokenizer()
    packed = pack_tokens(["abc", "defgh", "ij"], tokenizer, 4, limit=10)
    expected = [
        *tokenizer("abc")["input_ids"],
        EOS,
        *tokenizer("defgh")["input_ids"],
        EOS,
        *tokenizer("ij")["input_ids"],
    ]
    assert packed.shape == (3, 4)
    assert packed.flatten().tolist() == expected[:12]


def test_packing_reads_no_further_than_it_needs() -> None:
    read = []

    def documents():  # type: ignore[no-untyped-def]
        for index in range(1000):
            read.append(index)
            yield "x" * 99

    assert pack_tokens(documents(), byte_tokenizer(), 50, limit=4).shape == (4, 50)
    assert len(read) < 100


def test_corpora_are_mixed_by_weight_and_shuffled(tmp_path: Path) -> None:
    corpora = [
        WeightedSource(_corpus(tmp_path, "many", "a", 200), 3.0),
        WeightedSource(_corpus(tmp_path, "few", "b", 200), 1.0),
    ]
    sequences = training_sequences(corpora, byte_tokenizer(), 16, 40, seed=0)
    assert sequences.shape == (40, 16)
    assert (_count(sequences, "a"), _count(sequences, "b")) == (30, 10)
    assert 0 < _count(sequences[:20], "b") < 10


def test_the_same_seed_gives_the_same_order_and_another_seed_another(tmp_path: Path) -> None:
    corpora = [WeightedSource(_corpus(tmp_path, "one", "a", 100), 1.0)]
    first, again, other = (training_sequences(corpora, byte_tokenizer(), 16, 20, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first.sort(0).values, other.sort(0).values)


def test_held_out_documents_are_never_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    path.write_text("".join(json.dumps({"text": chr(65 + i) * 15}) + "\n" for i in range(50)))
    source = CorpusSource(name="letters", path=path, held_out_fraction=0.5)
    sequences = training_sequences([WeightedSource(source, 1.0)], byte_tokenizer(), 16, 25, seed=0)
    seen = set(byte_tokenizer().decode(sequences.flatten().tolist()).replace("</s>", ""))
    assert seen == {document[0] for document in source.documents(Split.TRAIN)}


def test_a_corpus_with_too_little_text_is_refused_by_name_and_numbers(tmp_path: Path) -> None:
    corpora = [
        WeightedSource(_corpus(tmp_path, "plenty", "a", 200), 1.0),
        WeightedSource(_corpus(tmp_path, "scarce", "b", 3), 1.0),
    ]
    with pytest.raises(RequestFault, match=r"corpus scarce fills \d+ tokens .* share of the alignment is 320.* Lower"):
        training_sequences(corpora, byte_tokenizer(), 16, 40, seed=0)


def test_a_tokenizer_without_eos_is_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(RequestFault, match="no end-of-text token"):
        pack_tokens(["abc"], tokenizer, 4, limit=1)


@pytest.mark.parametrize(
    ("count", "weights", "shares"),
    [(10, [1.0], [10]), (10, [1.0, 1.0, 1.0], [4, 3, 3]), (7, [0.5, 0.2], [5, 2]), (1, [1.0, 1e-9], [1, 0])],
)
def test_shares_add_up_and_follow_the_weights(count: int, weights: list[float], shares: list[int]) -> None:
    assert split_by_weight(count, weights) == shares


def test_an_exhausted_corpus_is_gone_through_again_in_another_order(tmp_path: Path) -> None:
    corpora = [
        WeightedSource(_corpus(tmp_path, "plenty", "a", 200), 1.0),
        WeightedSource(_corpus(tmp_path, "scarce", "b", 8), 1.0),
    ]
    said: list[str] = []
    repeat = partial(training_sequences, exhausted=Exhausted.REPEAT, log=said.append)
    sequences = repeat(corpora, byte_tokenizer(), 16, 80, seed=0)
    assert (len(sequences), _count(sequences, "a"), _count(sequences, "b")) == (80, 40, 40)
    again = sequences[[_count(row[None], "b") == 1 for row in sequences]]
    length = len(training_sequences(corpora[1:], byte_tokenizer(), 16, 1000, seed=0, exhausted=Exhausted.STOP))
    passes = [again[start : start + length].tolist() for start in range(0, 2 * length, length)]
    assert sorted(passes[0]) == sorted(passes[1])
    assert passes[0] != passes[1]
    assert said == [f"Corpus scarce fills {length * 16} tokens of training sequences of the 640 that are its share: "
                    "it is gone through again."]  # fmt: skip
    assert torch.equal(sequences, repeat(corpora, byte_tokenizer(), 16, 80, seed=0))


def test_alignment_stops_where_the_first_corpus_is_exhausted(tmp_path: Path) -> None:
    corpora = [
        WeightedSource(_corpus(tmp_path, "plenty", "a", 200), 3.0),
        WeightedSource(_corpus(tmp_path, "scarce", "b", 8), 1.0),
    ]
    said: list[str] = []
    held = len(training_sequences(corpora[1:], byte_tokenizer(), 16, 1000, seed=0, exhausted=Exhausted.STOP))
    sequences = training_sequences(
        corpora, byte_tokenizer(), 16, 400, seed=0, exhausted=Exhausted.STOP, batch_sequences=8, log=said.append
    )
    assert len(sequences) == 4 * held // 8 * 8
    assert _count(sequences, "b") == len(sequences) // 4
    assert said[0].endswith("alignment stops there.")


def test_stopping_before_the_first_batch_is_refused(tmp_path: Path) -> None:
    corpora = [WeightedSource(_corpus(tmp_path, "scarce", "b", 3), 1.0)]
    with pytest.raises(RequestFault, match="do not fill one batch"):
        training_sequences(corpora, byte_tokenizer(), 16, 64, seed=0, exhausted=Exhausted.STOP, batch_sequences=64)


def test_enough_text_is_the_same_whatever_would_happen_without(tmp_path: Path) -> None:
    corpora = [WeightedSource(_corpus(tmp_path, "one", "a", 100), 1.0)]
    ways = [training_sequences(corpora, byte_tokenizer(), 16, 40, seed=3, exhausted=way) for way in Exhausted]
    assert torch.equal(ways[0], ways[1])
    assert torch.equal(ways[0], ways[2])


def test_an_empty_corpus_cannot_be_repeated(tmp_path: Path) -> None:
    corpora = [WeightedSource(_corpus(tmp_path, "none", "a", 0), 1.0)]
    with pytest.raises(RequestFault, match="corpus none fills 0 tokens"):
        training_sequences(corpora, byte_tokenizer(), 16, 40, seed=3, exhausted=Exhausted.REPEAT)

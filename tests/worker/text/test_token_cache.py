"""Tokenized text is kept, and never mistaken for other text."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import torch
from torch import Tensor

from publisher.corpus.source import CorpusSource
from publisher.recipe import Exhausted
from tests.models import byte_tokenizer
from worker.text.packing import WeightedSource, training_sequences


def corpus(path: Path, text: str, documents: int = 40) -> WeightedSource:
    path.write_text("".join(json.dumps({"text": f"{number} {text}"}) + "\n" for number in range(documents)))
    return WeightedSource(CorpusSource(name="text", path=path), 1.0)


def read(source: WeightedSource, cache: Path | None, count: int = 20, length: int = 16) -> tuple[Tensor, int]:
    """The sequences, and how many documents were tokenized for them."""
    seen: list[None] = []
    sequences = training_sequences(
        [source],
        byte_tokenizer(),
        length,
        count,
        seed=0,
        cache=cache,
        exhausted=Exhausted.STOP,
        check=lambda: seen.append(None),
    )
    return sequences, len(seen)


def test_the_second_alignment_tokenizes_nothing(tmp_path: Path) -> None:
    source = corpus(tmp_path / "text.jsonl", "call me Ishmael")
    plain, _ = read(source, None)
    first, tokenized = read(source, tmp_path / "kept")
    again, nothing = read(source, tmp_path / "kept")
    assert tokenized > 0
    assert nothing == 0
    assert torch.equal(plain, first)
    assert torch.equal(plain, again)


def test_fewer_sequences_are_there_and_more_are_made(tmp_path: Path) -> None:
    source = corpus(tmp_path / "text.jsonl", "call me Ishmael")
    read(source, tmp_path / "kept", 10)
    assert read(source, tmp_path / "kept", 5)[1] == 0
    more, tokenized = read(source, tmp_path / "kept", 20)
    assert tokenized > 0
    assert torch.equal(more, read(source, None, 20)[0])
    assert len([*(tmp_path / "kept").iterdir()]) == 1


def test_a_text_that_was_read_to_its_end_is_not_read_again(tmp_path: Path) -> None:
    source = corpus(tmp_path / "text.jsonl", "short", documents=5)
    first, _ = read(source, tmp_path / "kept", 100)
    again, tokenized = read(source, tmp_path / "kept", 1000)
    assert tokenized == 0
    assert torch.equal(first.sort(0).values, again.sort(0).values)


def test_other_text_and_other_lengths_are_other_files(tmp_path: Path) -> None:
    cache = tmp_path / "kept"
    read(corpus(tmp_path / "one.jsonl", "call me Ishmael"), cache)
    found, tokenized = read(corpus(tmp_path / "one.jsonl", "some years ago"), cache)
    assert tokenized > 0
    assert torch.equal(found, read(corpus(tmp_path / "one.jsonl", "some years ago"), None)[0])
    assert read(corpus(tmp_path / "one.jsonl", "some years ago"), cache, length=8)[1] > 0


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    source = corpus(tmp_path / "text.jsonl", "call me Ishmael")
    wanted, _ = read(source, tmp_path / "kept")
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(file.read_bytes()[:40])
    assert torch.equal(read(source, tmp_path / "kept")[0], wanted)


def test_two_at_once_get_the_same(tmp_path: Path) -> None:
    source = corpus(tmp_path / "text.jsonl", "call me Ishmael", documents=300)
    found: list[Tensor] = []
    threads = [threading.Thread(target=lambda: found.append(read(source, tmp_path / "kept")[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(sequences, found[0]) for sequences in found)

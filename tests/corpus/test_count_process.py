"""A large corpus is counted elsewhere, with the same result and the same words for what is wrong with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from publisher.corpus import count_process
from publisher.corpus.count_process import count_apart
from publisher.corpus.facts import count
from publisher.corpus.source import CorpusSource
from publisher.errors import InfrastructureFault, RequestFault

_started: list[str] = []


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count_process, "LARGE", 0)


def corpus(folder: Path, last: str = '{"text": "the last"}') -> CorpusSource:
    lines = [json.dumps({"text": f"document {number} ü"}) for number in range(30)]
    (folder / "novel.jsonl").write_text("\n".join([*lines, last]) + "\n")
    return CorpusSource(name="novel", path=folder / "novel.jsonl", held_out_fraction=0.2)


def test_it_is_counted_in_another_process_with_the_same_result(tmp_path: Path) -> None:
    sys.addaudithook(lambda event, _: _started.append(event) if event == "subprocess.Popen" else None)
    source = corpus(tmp_path)
    assert count_apart(source, 60) == count(source)
    assert len(_started) == 1


def test_what_is_wrong_with_it_is_said_as_here(tmp_path: Path) -> None:
    source = corpus(tmp_path, last='{"other": 1}')
    with pytest.raises(RequestFault) as here:
        count(source)
    with pytest.raises(RequestFault) as there:
        count_apart(source, 60)
    assert (str(there.value), there.value.field) == (str(here.value), here.value.field)


def test_one_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureFault, match=r"counting corpus novel took more than 0\.01 s"):
        count_apart(corpus(tmp_path), 0.01)


def test_a_small_one_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count_process, "LARGE", 10**6)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert count_apart(corpus(tmp_path), 60).documents == 31

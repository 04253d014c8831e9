"""`--corpus` options: how a local corpus is read, and that only what a build reads is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from publisher.corpus.source import CorpusSource, Split
from publisher.errors import RequestFault
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from tests.worker.stages.building import prose, recipe
from worker.build.corpora import corpus_sources, names_read


def one(tmp_path: Path, place: str) -> CorpusSource:
    return corpus_sources(recipe(), (f"prose={place}",), tmp_path / "datasets")["prose"]


def full(**alignment: Any) -> Recipe:
    calibration = {"corpora": ["a", "b"], "samples": 4, "sequence_length": 32}
    return Recipe.model_validate(
        {
            "pruning": {"criterion": "taylor", "ratio": 0.5, "calibration": calibration},
            "alignment": {"corpora": ["b", "c"], "tokens": 4096, "sequence_length": 32, "batch_tokens": 64} | alignment,
            "evaluation": {"corpora": ["d", "e"]},
        }
    )


@pytest.mark.parametrize(
    ("last", "names"),
    [
        (Stage.FETCH, []),
        (Stage.CALIBRATE, ["a", "b"]),
        (Stage.PRUNE, ["a", "b"]),
        (Stage.ALIGN, ["a", "b", "c"]),
        (Stage.QUANTIZE, ["a", "b", "c"]),
        (Stage.EVALUATE, ["a", "b", "c", "d", "e"]),
        (Stage.PACKAGE, ["a", "b", "c", "d", "e"]),
    ],
)
def test_a_build_asks_for_what_its_stages_read(last: Stage, names: list[str]) -> None:
    assert names_read(full(), last) == names


def test_alignment_that_stops_by_a_probe_reads_its_corpus() -> None:
    assert names_read(full(stop="probe"), Stage.ALIGN) == ["a", "b", "c", "d"]


def test_a_criterion_that_reads_no_text_asks_for_none() -> None:
    assert names_read(recipe(criterion="magnitude"), Stage.PRUNE) == []


def test_a_local_corpus_says_how_it_is_read(tmp_path: Path) -> None:
    records = ({"my text": f"text {number}, a line of it", "id": number} for number in range(20))
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "a.jsonl").write_text(lines)
    source = one(tmp_path, f"{tmp_path}/a.jsonl?text_field=my+text&held_out_fraction=0.25")
    assert len(list(source.documents(Split.HELD_OUT))) == 5
    assert len(list(source.documents(Split.TRAIN))) == 15


def test_a_field_that_is_missing_is_named_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "a", "id": 1}\n')
    with pytest.raises(RequestFault, match=r"corpus prose: a.jsonl, line 1 .* content, id.*\?text_field=FIELD"):
        one(tmp_path, f"{tmp_path}/a.jsonl")


def test_a_question_mark_may_be_part_of_a_name(tmp_path: Path) -> None:
    assert one(tmp_path, str(prose(tmp_path / "why?text.jsonl"))).path == tmp_path / "why?text.jsonl"
    assert one(tmp_path, f"{tmp_path}/why?text.jsonl?held_out_fraction=0.5").held_out_fraction == 0.5


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("split=train", "says split, which is not known. Known after the question mark: text_field, held_out_fraction"),
        ("nonsense", "says nonsense, which is not known"),
        ("held_out_fraction=2", "held_out_fraction in .*less than or equal to 1"),
        ("held_out_fraction=most", "held_out_fraction in .*number"),
        ("text_field=", "text_field in .*at least 1 character"),
    ],
)
def test_wrong_words_after_the_question_mark_are_refused(query: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestFault, match=message):
        one(tmp_path, f"{prose(tmp_path / 'a.jsonl')}?{query}")


def test_everything_is_read_before_anything_is_done(tmp_path: Path) -> None:
    text = prose(tmp_path / "a.jsonl")
    with text.open("a") as lines:
        lines.write('{"text": "\\ud800"}\n')
    with pytest.raises(RequestFault, match=r"corpus prose: a.jsonl, line 31 holds half of a surrogate pair"):
        one(tmp_path, str(text))


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": null}\n')
    with pytest.raises(RequestFault, match=r"corpus prose: .* holds no text"):
        one(tmp_path, str(tmp_path))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"evaluation": {"corpora": ["prose"]}}, "corpus prose has 0 bytes of text in its 0 held-out documents"),
        ({"alignment": {"corpora": ["prose"], "tokens": 4_096_000}}, "4,096,000 tokens are asked of it"),
    ],
)
def test_too_little_text_is_refused_before_anything_is_done(
    asked: dict[str, Any], message: str, tmp_path: Path
) -> None:
    place = f"prose={prose(tmp_path / 'a.jsonl')}?held_out_fraction=0"
    wanted = Recipe.model_validate(recipe().model_dump() | asked)
    with pytest.raises(RequestFault, match=message):
        corpus_sources(wanted, (place,), tmp_path / "datasets")
    assert corpus_sources(wanted, (place,), tmp_path / "datasets", Stage.PRUNE)


@pytest.mark.parametrize("exhausted", ["repeat", "stop"])
def test_less_text_than_tokens_will_do_where_the_recipe_says_what_then(exhausted: str, tmp_path: Path) -> None:
    place = f"prose={prose(tmp_path / 'a.jsonl')}"
    alignment = {"corpora": ["prose"], "tokens": 4_096_000, "exhausted": exhausted}
    assert corpus_sources(
        Recipe.model_validate(recipe().model_dump() | {"alignment": alignment}), (place,), tmp_path / "datasets"
    )


def test_text_that_changes_during_a_build_is_refused(tmp_path: Path) -> None:
    text = prose(tmp_path / "a.jsonl")
    source = one(tmp_path, str(text))
    prose(text, documents=31)
    with pytest.raises(RequestFault, match=r"corpus prose: a.jsonl changed .* give the build command again"):
        source.content_digest()


def test_a_text_that_is_alone_is_said_to_be_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "novel.txt").write_text("Call me Ishmael. " * 1000)
    source = one(tmp_path, f"{tmp_path}/novel.txt")
    assert list(source.documents(Split.TRAIN))
    assert list(source.documents(Split.HELD_OUT))
    assert "corpus prose is one document: its first 15," in capsys.readouterr().err


def test_an_option_without_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter, match="is not NAME=PATH"):
        corpus_sources(recipe(), ("prose",), tmp_path)

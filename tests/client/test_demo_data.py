"""The demo's text comes out of packages that `make setup` installs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from publisher.client.demo.data import CLASSICS, DOCUMENT_CHARACTERS, MODEL_NAME, NOVEL, prepare_corpora
from publisher.client.demo.recipe import RECIPE
from publisher.corpus.source import CorpusSource, Split


def test_every_corpus_of_the_recipe_is_there_with_documents_on_both_sides(tmp_path: Path) -> None:
    paths = prepare_corpora(tmp_path)
    assert set(RECIPE.corpus_names()) <= paths.keys()
    for name, path in paths.items():
        source = CorpusSource(name=name, path=path)
        assert list(source.documents(Split.HELD_OUT))
        assert max(len(text) for text in source.documents(Split.TRAIN)) > DOCUMENT_CHARACTERS


def test_the_novel_is_not_aligned_on(tmp_path: Path) -> None:
    assert NOVEL not in CLASSICS
    paths = prepare_corpora(tmp_path)
    novel = set(CorpusSource(name="novel", path=paths["novel"]).documents())
    assert not novel & set(CorpusSource(name="classics", path=paths["classics"]).documents())


def test_text_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = prepare_corpora(tmp_path)["novel"]
    path.write_text('{"text": "mine"}\n')
    assert prepare_corpora(tmp_path)["novel"].read_text() == '{"text": "mine"}\n'


def test_model_and_text_can_be_had_without_the_demo(tmp_path: Path) -> None:
    (tmp_path / "models" / MODEL_NAME).mkdir(parents=True)  # made before, so that nothing is converted here
    command = [sys.executable, "-m", "publisher.client.main", "demo", "--prepare", "--data", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name for path in tmp_path.iterdir()} == {"models", "corpora"}
    assert {path.stem for path in (tmp_path / "corpora").iterdir()} == {"novel", "classics", "python-docs"}

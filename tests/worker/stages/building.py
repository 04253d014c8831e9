"""Requests for small builds, as tests of stages and of the command line make them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from publisher.base_model.facts import inspect_folder
from publisher.corpus.source import CorpusSource
from publisher.recipe import Recipe
from worker.request import BaseModelSource, BuildRequest

PRUNING: dict[str, Any] = {
    "criterion": "taylor",
    "ratio": 0.5,
    "protect_first": 1,
    "protect_last": 1,
    "calibration": {"corpus": "prose", "samples": 4, "sequence_length": 32},
}


def recipe(**pruning: Any) -> Recipe:
    return Recipe.model_validate({"pruning": PRUNING | pruning, "quantization": {"scheme": "none"}})


def prose(path: Path, documents: int = 30) -> Path:
    """A corpus of short documents."""
    texts = (f"Document {number}: " + "call me Ishmael. " * 5 for number in range(documents))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def request_for(base: Path, corpus: Path, recipe: Recipe) -> BuildRequest:
    facts = inspect_folder(base)
    return BuildRequest(
        base=BaseModelSource(facts.repo_id, facts.revision, facts.path),
        recipe=recipe,
        corpora={"prose": CorpusSource(name="prose", path=corpus)},
    )

"""Whatever reads text, reads it in sequences that begin as the tokenizer begins a text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from publisher.manifest.manifest import Manifest, TextRecord
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from tests.models import BOS, framed_tokenizer, tiny_llama
from tests.worker.stages.building import PRUNING, prose, request_for
from worker.context import RecordingContext
from worker.request import BuildRequest
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore

ADDS = {"bos": ("bos",), "both": ("bos", "eos"), "eos": ("eos",), "none": ()}
LENGTH = 32
ALIGNMENT = {"corpora": [{"name": "prose"}], "sequence_length": LENGTH, "batch_tokens": 64, "tokens": 384}
RECIPES: dict[str, dict[str, Any]] = {
    "structured": {
        "pruning": PRUNING,
        "alignment": ALIGNMENT | {"reconstruction_tokens": 64, "stop": "held_out", "practice_steps": 1},
        "quantization": {"scheme": "nf4"},
        "evaluation": {
            "corpora": ["prose"],
            "sequence_length": LENGTH,
            "stride": 20,
            "tokens": 200,
            "require_certificate": False,
            "probe_budget": {"steps": 2, "batch_size": 2, "sequence_length": LENGTH, "rank": 4},
        },
    },
    "unstructured": {
        "pruning": PRUNING | {"method": "unstructured", "criterion": "wanda"},
        "quantization": {"scheme": "none"},
    },
}


@contextmanager
def sequences_read() -> Iterator[list[Tensor]]:
    """All (rows, length) ids that any model is given in here."""
    read: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Embedding) and inputs[0].dim() == 2 and inputs[0].any():
            read.append(inputs[0].clone())

    handle = register_module_forward_pre_hook(note)
    try:
        yield read
    finally:
        handle.remove()


def _request(folder: Path, recipe: dict[str, Any], *adds: str) -> BuildRequest:
    tiny_llama(folder / "base")
    framed_tokenizer(*adds).save_pretrained(folder / "base")
    prose(folder / "prose.jsonl", documents=60)
    return request_for(folder / "base", folder / "prose.jsonl", Recipe.model_validate(recipe))


def _built(folder: Path, request: BuildRequest) -> dict[Stage, Path]:
    return run_pipeline(request, StageStore(folder / "stages"), lambda _: RecordingContext(), Stage.PACKAGE)


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=[pytest.mark.long] if name == "structured" else []) for name in RECIPES]
)
def test_every_sequence_that_any_stage_gives_a_model_begins_with_bos(tmp_path: Path, recipe: str) -> None:
    request = _request(tmp_path, RECIPES[recipe], "bos")
    with sequences_read() as read:
        _built(tmp_path, request)
    assert read
    assert all((tokens[:, 0] == BOS).all() for tokens in read)


@pytest.mark.long
def test_a_family_that_has_no_bos_is_given_none(tmp_path: Path) -> None:
    request = _request(tmp_path, RECIPES["structured"])
    with sequences_read() as read:
        _built(tmp_path, request)
    assert not any((tokens == BOS).any() for tokens in read)


@pytest.mark.parametrize("adds", ADDS)
def test_the_manifest_says_how_text_was_framed(tmp_path: Path, adds: str) -> None:
    request = _request(tmp_path, {"pruning": PRUNING, "quantization": {"scheme": "none"}}, *ADDS[adds])
    manifest = Manifest.read(_built(tmp_path, request)[Stage.PACKAGE])
    assert manifest.text == TextRecord(before=["<s>"] if "bos" in ADDS[adds] else [], close=["</s>"])

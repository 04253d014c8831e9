"""Whatever becomes of the request's files while its job runs is the request's fault, and names the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.jobs.transitions import Blame
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from tests.models import tiny_llama
from tests.worker.stages.building import PRUNING, prose, request_for
from worker.context import RecordingContext
from worker.jobs.failures import failure_of
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore

RECIPE = Recipe.model_validate(
    {
        "pruning": PRUNING,
        "quantization": {"scheme": "none"},
        "evaluation": {"corpora": ["prose"], "tokens": 64, "probe": False},
    }
)
WEIGHTS, TOKENIZER, CONFIG, CORPUS = "model.safetensors", "tokenizer.json", "config.json", "../prose.jsonl"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff\xfe not what it was")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "base")


@pytest.mark.parametrize("damage", [Path.unlink, cut, garbage, folder, loop])
@pytest.mark.parametrize(
    ("stage", "name"),
    [
        (Stage.FETCH, WEIGHTS),
        (Stage.CALIBRATE, WEIGHTS),
        (Stage.CALIBRATE, TOKENIZER),
        (Stage.CALIBRATE, CORPUS),
        (Stage.PRUNE, WEIGHTS),
        (Stage.EVALUATE, WEIGHTS),
        (Stage.EVALUATE, CORPUS),
    ],
)
def test_a_file_that_is_damaged_during_the_job_is_the_request_s_fault(
    base: Path, tmp_path: Path, stage: Stage, name: str, damage: Callable[[Path], object]
) -> None:
    """When its stage begins. No try is repeated by itself, and nobody has to look at the worker."""
    request = request_for(base, prose(tmp_path / "prose.jsonl", documents=100), RECIPE)

    def begins(now: Stage) -> RecordingContext:
        if now is stage:
            damage(base / name)
        return RecordingContext()

    with pytest.raises(Exception) as raised:  # noqa: PT011 - which class it is, is what the next lines ask
        run_pipeline(request, StageStore(tmp_path / "stages"), begins, Stage.EVALUATE)
    failure = failure_of(raised.value, stage)
    assert failure.blame is Blame.REQUEST, failure
    assert failure.way_out
    assert any(named in failure.message for named in (Path(name).name, "tokenizer", "base model"))


def test_a_stage_s_own_files_are_not_the_request_s(base: Path, tmp_path: Path) -> None:
    """What prune wrote and a disk has changed: another try makes it again."""
    request = request_for(base, prose(tmp_path / "prose.jsonl", documents=100), RECIPE)
    stages = tmp_path / "stages"

    def begins(now: Stage) -> RecordingContext:
        if now is Stage.EVALUATE:
            (pruned,) = stages.glob("prune-*/model/model.safetensors")
            pruned.unlink()
        return RecordingContext()

    with pytest.raises(Exception) as raised:  # noqa: PT011
        run_pipeline(request, StageStore(stages), begins, Stage.EVALUATE)
    assert failure_of(raised.value, Stage.EVALUATE).blame is Blame.INFRASTRUCTURE

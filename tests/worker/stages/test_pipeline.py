"""Fetch, calibrate and prune one after the other: reuse, kills, and bad input that changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from publisher.corpus.source import CorpusSource
from publisher.errors import JobCancelled, OutOfDisk, PublisherError, RequestFault
from publisher.jobs.transitions import Blame
from publisher.manifest.verdict import Requirement
from publisher.recipe import Evaluation, Recipe
from publisher.recipe.stages import Stage
from tests.models import tiny_llama
from tests.worker.stages.building import prose, recipe, request_for
from worker.context import RecordingContext
from worker.jobs.failures import failure_of
from worker.request import BuildRequest, PublishTarget
from worker.stages.pipeline import StageState, foresee_certificate, run_pipeline, stages_of
from worker.storage.collection import Limits, Upkeep
from worker.storage.store import StageStore


class Watcher:
    """Remembers what the pipeline said."""

    def __init__(self) -> None:
        self.states: list[tuple[Stage, StageState]] = []
        self.contexts: dict[Stage, RecordingContext] = {}

    def context(self, stage: Stage) -> RecordingContext:
        return self.contexts.setdefault(stage, RecordingContext())

    def on_stage(self, stage: Stage, state: StageState, seconds: float | None) -> None:
        assert (seconds is None) == (state is StageState.STARTED)
        self.states.append((stage, state))

    def outcomes(self) -> list[StageState]:
        return [state for _, state in self.states if state is not StageState.STARTED]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "base", max_shard_size="30KB")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return prose(tmp_path / "prose.jsonl")


def prune(base: Path, corpus: Path, stages: Path, wanted: Recipe) -> tuple[Path, Watcher]:
    watcher = Watcher()
    folders = run_pipeline(
        request_for(base, corpus, wanted), StageStore(stages), watcher.context, Stage.PRUNE, watcher.on_stage
    )
    return folders[Stage.PRUNE], watcher


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the record, which holds the seconds."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "stage.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_every_stage_reports_its_start_end_and_full_progress(base: Path, corpus: Path, tmp_path: Path) -> None:
    _, watcher = prune(base, corpus, tmp_path / "stages", recipe())
    assert watcher.states == [
        (stage, state)
        for stage in (Stage.FETCH, Stage.CALIBRATE, Stage.PRUNE)
        for state in (StageState.STARTED, StageState.FINISHED)
    ]
    assert {stage: context.fraction for stage, context in watcher.contexts.items()} == {
        Stage.FETCH: 1.0,
        Stage.CALIBRATE: 1.0,
        Stage.PRUNE: 1.0,
    }


def test_another_ratio_shares_fetch_and_calibration(base: Path, corpus: Path, tmp_path: Path) -> None:
    first, _ = prune(base, corpus, tmp_path / "stages", recipe(ratio=0.5))
    second, watcher = prune(base, corpus, tmp_path / "stages", recipe(ratio=0.6))
    assert watcher.outcomes() == [StageState.REUSED, StageState.REUSED, StageState.FINISHED]
    assert first != second


def test_two_builds_in_two_places_are_byte_identical(base: Path, corpus: Path, tmp_path: Path) -> None:
    first, second = (prune(base, corpus, tmp_path / name, recipe())[0] for name in ("one", "two"))
    assert contents(first) == contents(second)


def test_other_weights_under_the_same_headers_are_calibrated_anew(base: Path, corpus: Path, tmp_path: Path) -> None:
    first, _ = prune(base, corpus, tmp_path / "stages", recipe())
    tiny_llama(base, seed=1, max_shard_size="30KB")
    second, watcher = prune(base, corpus, tmp_path / "stages", recipe())
    assert watcher.outcomes() == [StageState.FINISHED] * 3
    assert contents(first) != contents(second)


def test_fetch_lists_every_file_with_its_digest(base: Path, corpus: Path, tmp_path: Path) -> None:
    watcher = Watcher()
    folders = run_pipeline(
        request_for(base, corpus, recipe()), StageStore(tmp_path / "stages"), watcher.context, Stage.FETCH
    )
    listed = json.loads((folders[Stage.FETCH] / "base.json").read_text())["files"]
    assert set(listed) == {path.name for path in base.iterdir()}
    assert {name: facts["size"] for name, facts in listed.items()} == {
        path.name: path.stat().st_size for path in base.iterdir()
    }


@pytest.mark.parametrize("stage", ["fetch", "calibrate", "prune"])
def test_a_kill_within_a_stage_changes_nothing_of_the_result(
    base: Path, corpus: Path, tmp_path: Path, stage: str
) -> None:
    """A process that is killed when the stage reports its first progress, then the same build again."""
    script = f"""
import sys
from pathlib import Path
from tests.worker.stages.building import recipe, request_for
from publisher.recipe.stages import Stage
from worker.context import RecordingContext
from worker.stages.pipeline import run_pipeline
from worker.request import BuildRequest, PublishTarget
from worker.storage.collection import Limits, Upkeep
from worker.storage.store import StageStore

class Blocking(RecordingContext):
    def progress(self, done, total, unit):
        print("inside", flush=True)
        sys.stdin.read()

request = request_for(Path({str(base)!r}), Path({str(corpus)!r}), recipe())
store = StageStore(Path({str(tmp_path / "stages")!r}))
run_pipeline(request, store, lambda stage: Blocking() if stage == {stage!r} else RecordingContext(), Stage.PRUNE)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "inside\n"
        process.kill()
    assert not list((tmp_path / "stages").glob(f"{stage}-*"))
    after_kill, _ = prune(base, corpus, tmp_path / "stages", recipe())
    undisturbed, _ = prune(base, corpus, tmp_path / "undisturbed", recipe())
    assert contents(after_kill) == contents(undisturbed)


def test_a_cancel_stops_the_stage_and_leaves_nothing_of_it(base: Path, corpus: Path, tmp_path: Path) -> None:
    class Cancelled(RecordingContext):
        def check(self) -> None:
            if self.fraction > 0.3:
                raise JobCancelled("cancelled")

    store = StageStore(tmp_path / "stages")
    with pytest.raises(JobCancelled):
        run_pipeline(
            request_for(base, corpus, recipe()),
            store,
            lambda stage: Cancelled() if stage is Stage.PRUNE else RecordingContext(),
            Stage.PRUNE,
        )
    assert sorted(path.name.split("-")[0] for path in store.root.glob("[!.]*")) == ["calibrate", "fetch"]


def append_a_byte(base: Path) -> None:
    with min(base.glob("*.safetensors")).open("ab") as shard:
        shard.write(b"x")


def rename_a_token(base: Path) -> None:
    config = base / "tokenizer_config.json"
    config.write_text(config.read_text().replace("<pad>", "<pat>"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (append_a_byte, "holds 1 bytes that its header does not describe"),
        (lambda base: min(base.glob("*.safetensors")).unlink(), "shards are missing"),
        (rename_a_token, "has changed: it was registered as"),
    ],
    ids=["corrupt shard", "missing shard", "changed since registration"],
)
def test_a_base_model_that_changed_is_refused(
    base: Path, corpus: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    request = request_for(base, corpus, recipe())
    damage(base)
    with pytest.raises(PublisherError, match=message):
        run_pipeline(request, StageStore(tmp_path / "stages"), Watcher().context, Stage.PRUNE)
    assert not list((tmp_path / "stages").glob("fetch-*"))


def test_too_little_text_is_refused_with_both_counts(base: Path, tmp_path: Path) -> None:
    short = prose(tmp_path / "short.jsonl", documents=2)
    wanted = recipe(calibration={"corpus": "prose", "samples": 100, "sequence_length": 32})
    with pytest.raises(RequestFault, match=r"\(\d+ tokens\); 100 sequences \(3,200 tokens\) are needed"):
        prune(base, short, tmp_path / "stages", wanted)
    assert not list((tmp_path / "stages").glob("calibrate-*"))


def test_several_corpora_share_the_calibration_by_weight(base: Path, tmp_path: Path) -> None:
    texts = {"sea": "call me Ishmael. " * 40, "city": "it was the best of times; " * 40}
    corpora = {}
    for name, text in texts.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps({"text": text}) + "\n")
        corpora[name] = CorpusSource(name=name, path=path, held_out_fraction=0.0)

    def tokens(**calibration: Any) -> Tensor:
        wanted = recipe(method="unstructured", criterion="wanda", calibration=calibration | {"sequence_length": 32})
        request = replace(request_for(base, tmp_path / "sea.jsonl", wanted), corpora=corpora)
        folders = run_pipeline(request, StageStore(tmp_path / "stages"), Watcher().context, Stage.CALIBRATE)
        return load_file(folders[Stage.CALIBRATE] / "calibration.safetensors")["tokens"]

    both = tokens(corpora=[{"name": "sea", "weight": 2}, {"name": "city"}], samples=6)
    assert torch.equal(both, torch.cat([tokens(corpus="sea", samples=4), tokens(corpus="city", samples=2)]))
    calibrated = {folder.name for folder in (tmp_path / "stages").glob("calibrate-*")}
    assert torch.equal(tokens(corpora=[{"name": "sea", "weight": 7}], samples=4), tokens(corpus="sea", samples=4))
    assert {folder.name for folder in (tmp_path / "stages").glob("calibrate-*")} == calibrated, "the same text"


def test_a_corpus_that_is_too_short_for_its_share_is_named(base: Path, tmp_path: Path) -> None:
    long, short = prose(tmp_path / "long.jsonl"), prose(tmp_path / "short.jsonl", documents=2)
    calibration = {"corpora": [{"name": "prose"}, {"name": "short"}], "samples": 40, "sequence_length": 32}
    request = request_for(base, long, recipe(calibration=calibration))
    request = replace(request, corpora=request.corpora | {"short": CorpusSource(name="short", path=short)})
    with pytest.raises(RequestFault, match=r"corpus short: .* 20 sequences .* are needed"):
        run_pipeline(request, StageStore(tmp_path / "stages"), Watcher().context, Stage.CALIBRATE)
    unknown = recipe(calibration={"corpora": [{"name": "prose"}, {"name": "shrot"}]})
    with pytest.raises(RequestFault, match="shrot is not known") as refused:
        run_pipeline(replace(request, recipe=unknown), StageStore(tmp_path / "stages"), Watcher().context)
    assert refused.value.field == "recipe.pruning.calibration.corpora.1.name"
    assert not list((tmp_path / "stages").glob("calibrate-*"))


def test_weights_that_overflow_are_refused(tmp_path: Path, corpus: Path) -> None:
    base = tiny_llama(tmp_path / "wild")
    weights = load_file(base / "model.safetensors")
    weights["model.layers.2.mlp.up_proj.weight"][0, 0] = float("inf")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestFault, match=r"not finite: model\.layers\.2\.mlp\.up_proj\.weight"):
        prune(base, corpus, tmp_path / "stages", recipe())


def test_magnitude_looks_neither_at_text_nor_seed(base: Path, corpus: Path, tmp_path: Path) -> None:
    wanted = recipe(criterion="magnitude", calibration=None)
    prune(base, corpus, tmp_path / "stages", wanted)
    _, watcher = prune(base, corpus, tmp_path / "stages", wanted.model_copy(update={"seed": 5}))
    assert watcher.outcomes() == [StageState.REUSED] * 3


def test_stages_that_the_recipe_leaves_out_are_not_planned(base: Path, corpus: Path) -> None:
    request = request_for(base, corpus, recipe())
    assert stages_of(request) == [Stage.FETCH, Stage.CALIBRATE, Stage.PRUNE, Stage.QUANTIZE, Stage.PACKAGE]
    assert stages_of(request, Stage.CALIBRATE) == [Stage.FETCH, Stage.CALIBRATE]


def _certifying(base: Path, corpus: Path, requirement: Requirement, *, publish: bool) -> BuildRequest:
    evaluation = Evaluation(corpora=["prose"], require_certificate=requirement)
    asked = request_for(base, corpus, recipe().model_copy(update={"evaluation": evaluation}))
    target = PublishTarget("http://hub.example", "org/small", private=False, token="secret") if publish else None
    return replace(asked, publish=target)


def test_too_few_documents_to_certify_are_told_before_the_work(base: Path, tmp_path: Path) -> None:
    """Of 30 documents three are held out. Where nothing could be published, nothing is calibrated."""
    corpus, watcher = prose(tmp_path / "prose.jsonl", documents=30), Watcher()
    asked = _certifying(base, corpus, True, publish=True)
    with pytest.raises(RequestFault, match=r"holds out 3 documents.*at least 8.*held_out_fraction") as refused:
        run_pipeline(asked, StageStore(tmp_path / "stages"), watcher.context, on_stage=watcher.on_stage)
    assert refused.value.field == "recipe.evaluation.require_certificate"
    assert watcher.states[-1] == (Stage.CALIBRATE, StageState.STARTED)


@pytest.mark.parametrize(("requirement", "publish"), [(True, False), ("unless_failed", True), (False, True)])
def test_too_few_documents_to_certify_are_a_warning_where_the_checkpoint_can_be_had(
    base: Path, tmp_path: Path, requirement: Requirement, publish: bool
) -> None:
    corpus, context = prose(tmp_path / "prose.jsonl", documents=30), RecordingContext()
    foresee_certificate(_certifying(base, corpus, requirement, publish=publish), context)
    assert len(context.messages) == 1
    assert "Warning: corpus prose holds out 3 documents" in context.messages[0]
    enough = prose(tmp_path / "more.jsonl", documents=80)
    foresee_certificate(_certifying(base, enough, True, publish=True), context)
    assert len(context.messages) == 1


@pytest.mark.parametrize(
    "spoil", [Path.unlink, lambda path: path.write_bytes(b"\xff"), lambda path: path.write_text("{")]
)
def test_a_corpus_that_is_spoilt_later_is_the_request_s_fault(
    base: Path, corpus: Path, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    """So the job is not tried again by itself."""
    request = request_for(base, corpus, recipe())
    spoil(corpus)
    with pytest.raises(RequestFault, match=r"corpus prose: .*prose.jsonl") as fault:
        run_pipeline(request, StageStore(tmp_path / "stages"), Watcher().context, Stage.PRUNE)
    assert failure_of(fault.value, "calibrate").blame is Blame.REQUEST


def test_a_stage_without_room_is_named_before_it_begins_and_the_build_goes_on_once_there_is(
    base: Path, corpus: Path, tmp_path: Path
) -> None:
    request, watcher = request_for(base, corpus, recipe()), Watcher()
    full = StageStore(tmp_path / "stages", upkeep=Upkeep(Limits(keep_free=2**60)))
    with pytest.raises(
        OutOfDisk, match=r"stage calibrate needs about [\d.]+ KiB under .* are free, .* of which stay free"
    ):
        run_pipeline(request, full, watcher.context, Stage.PRUNE, watcher.on_stage)
    assert failure_of(OutOfDisk("full"), "calibrate").blame is Blame.INFRASTRUCTURE
    run_pipeline(request, StageStore(tmp_path / "stages"), watcher.context, Stage.PRUNE, watcher.on_stage)
    assert watcher.outcomes() == [StageState.FINISHED, StageState.REUSED, StageState.FINISHED, StageState.FINISHED]


def test_a_build_beyond_the_limit_keeps_its_own_stages_and_collects_those_of_others(
    base: Path, corpus: Path, tmp_path: Path
) -> None:
    stages = tmp_path / "stages"
    prune(base, corpus, stages, recipe(ratio=0.6))
    others = {folder.name for folder in stages.glob("prune-*")}
    store = StageStore(stages, "job_1", Upkeep(Limits(most=0), collects=True))
    folders = run_pipeline(request_for(base, corpus, recipe()), store, Watcher().context, Stage.PRUNE)
    assert all(folder.exists() for folder in folders.values())
    assert not any((stages / name).exists() for name in others)

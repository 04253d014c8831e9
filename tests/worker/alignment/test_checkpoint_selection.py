"""Which weights alignment ends with: the best on held-out text, or those whose probe helps the base model most."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from publisher.corpus.source import CorpusSource, Split
from publisher.errors import JobCancelled, RequestFault
from publisher.recipe import ProbeBudget, Quantization, Recipe, Scheme
from publisher.recipe.stages import Stage
from tests.models import byte_tokenizer, tiny_llama
from tests.worker.alignment.builds import BATCH_TOKENS, LENGTH, STEPS, prepare, request
from tests.worker.stages.building import PRUNING, prose, request_for
from worker.alignment import probing
from worker.alignment.checkpoint_selection import BestHeldOut, best_check, check_steps
from worker.alignment.distributed.ranks import Alone
from worker.alignment.state import Check, TrainingProgress
from worker.context import RecordingContext
from worker.models.causal import load_causal
from worker.probe.probe import train_probe
from worker.probe.text import candidates_text
from worker.quantization.nf4 import load_published, quantize_nf4
from worker.request import BuildRequest
from worker.stages.align import stage as align
from worker.stages.inputs import AlignInputs
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore
from worker.text.packing import WeightedSource
from worker.training.held_out import held_out_sequences

PROBE = {"steps": 8, "batch_size": 2, "sequence_length": 32, "rank": 4, "learning_rate": 1e-2}
PROTECT_NONE = {"protect_first": 0, "protect_last": 0}
PROBED = "The base model's loss with a probe"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums depend on the number of threads in their last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class CancelledAfterAProbe(RecordingContext):
    def check(self) -> None:
        if any(PROBED in message for message in self.messages):
            raise JobCancelled("cancelled by the test.")


def _report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "alignment.json").read_bytes())
    return report


def _model(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def test_checks_are_at_equal_distances_and_the_last_is_the_end() -> None:
    assert check_steps(12, 4) == [3, 6, 9, 12]
    assert check_steps(48, 5) == [10, 19, 29, 38, 48]
    assert check_steps(3, 3) == [1, 2, 3]


def test_the_first_of_the_lowest_losses_is_the_best() -> None:
    checks = [Check(step=step, loss=loss) for step, loss in ((1, 3.0), (2, None), (3, 2.0), (4, 2.0))]
    assert best_check(checks) is checks[2]
    assert best_check(checks[1:2]) is None


@pytest.mark.parametrize(
    ("losses", "over"), [([3, 2, 4], False), ([3, 2, 4, 2], True), ([3, None, None], True), ([None, 2, 1], False)]
)
def test_checks_without_a_better_one_end_training(tmp_path: Path, losses: list[float | None], over: bool) -> None:
    model = load_causal(tiny_llama(tmp_path), "cpu")
    selection = BestHeldOut(
        model,
        _Unused(),
        torch.empty(0),
        steps=12,
        checks=12,
        patience=2,
        file=tmp_path / "best",
        log=lambda _: None,
        ranks=Alone(torch.device("cpu")),
    )
    checks = [Check(step=step + 1, loss=loss) for step, loss in enumerate(losses)]
    assert selection.is_over(TrainingProgress(checks=checks)) == over


class _Unused:
    def __call__(self, model: object, tokens: Tensor) -> Tensor:
        raise AssertionError("nothing is measured")

    def positions(self, tokens: Tensor) -> int:
        raise AssertionError("nothing is measured")


def test_held_out_loss_is_the_model_s_own_on_documents_that_are_not_trained_on(tmp_path: Path) -> None:
    """As published, in 4 bits. One check, at the end, so that what comes out was measured (but for bf16)."""
    inputs = prepare(tmp_path)
    asked = request(tmp_path, stop="held_out", checks=1, objective="language_model")
    align.run(asked, inputs, tmp_path / "out", RecordingContext())
    sequences = held_out_sequences([WeightedSource(asked.corpora["sea"], 1.0)], byte_tokenizer(), LENGTH).long()
    text = byte_tokenizer().decode(sequences.flatten())
    quantize_nf4(tmp_path / "out" / "model", tmp_path / "nf4", "cpu")
    held_out = list(asked.corpora["sea"].documents(Split.HELD_OUT))
    assert text.startswith(held_out[0] + "</s>" + held_out[1])
    with torch.no_grad():
        logits = [
            load_published(folder, "cpu")(sequences).logits for folder in (tmp_path / "out" / "model", tmp_path / "nf4")
        ]
    whole, published = (
        float(functional.cross_entropy(some[:, :-1].flatten(0, 1), sequences[:, 1:].flatten())) for some in logits
    )
    [check] = _report(tmp_path / "out")["checks"]
    assert check["step"] == STEPS
    assert abs(check["loss"] - published) < 0.1 * abs(published - whole)


def test_alignment_ends_early_and_with_the_best_weights(tmp_path: Path) -> None:
    """The rate of 1 harms after the first steps."""
    inputs, context = prepare(tmp_path), RecordingContext()
    settings = {"stop": "held_out", "checks": STEPS, "patience": 2, "learning_rate": 1.0, "warmup_fraction": 0.0}
    align.run(request(tmp_path, **settings), inputs, tmp_path / "out", context)
    report = _report(tmp_path / "out")
    losses = [check["loss"] for check in report["checks"]]
    assert [check["step"] for check in report["checks"]] == list(range(1, report["steps"] + 1))
    told = [(step, loss) for name, step, loss in context.metrics if name == "held_out_loss"]
    assert told == [(check["step"], check["loss"]) for check in report["checks"]]
    assert report["step"] == 1 + losses.index(min(losses)) == report["steps"] - 2 < STEPS - 2
    assert report["tokens"] == report["steps"] * BATCH_TOKENS
    best = load_file(tmp_path / "out" / "state" / "best.safetensors")
    for name, weight in _model(tmp_path / "out").items():
        assert name == "lm_head.weight" or torch.equal(weight, best[f"weights.{name}"].bfloat16())


@pytest.mark.parametrize("corpora", [["sea"], ["sea", "lake"]])
def test_no_held_out_text_is_refused_before_anything_is_trained(tmp_path: Path, corpora: list[str]) -> None:
    inputs, context = prepare(tmp_path), RecordingContext()
    asked = request(tmp_path, stop="held_out", corpora=[{"name": name} for name in corpora])
    sources = {n: CorpusSource(name=n, path=tmp_path / "sea.jsonl", held_out_fraction=0) for n in corpora}
    with pytest.raises(RequestFault, match=rf"held-out documents of {', '.join(corpora)} do not fill") as caught:
        align.run(replace(asked, corpora=sources), inputs, tmp_path / "out", context)
    assert caught.value.field == "recipe.alignment.stop"
    assert context.metrics == []


def _probed_request(folder: Path, pruning: dict[str, Any] = PRUNING, **alignment: Any) -> BuildRequest:
    if not (folder / "base").exists():
        tiny_llama(folder / "base")
        prose(folder / "prose.jsonl", documents=60)
    settings = {"corpora": [{"name": "prose"}], "tokens": 512, "batch_tokens": 64, "sequence_length": 32}
    recipe = {
        "pruning": pruning,
        "alignment": settings | {"learning_rate": 1e-2, "stop": "probe", "checks": 3} | alignment,
        "evaluation": {"corpora": ["prose"], "sequence_length": 32, "tokens": 300, "probe_budget": PROBE},
    }
    return request_for(folder / "base", folder / "prose.jsonl", Recipe.model_validate(recipe))


def _pruned(folder: Path, asked: BuildRequest) -> AlignInputs:
    store = StageStore(folder / "stages")
    folders = run_pipeline(asked, store, lambda stage: RecordingContext(), Stage.PRUNE)
    prune = folders[Stage.PRUNE]
    return AlignInputs(folders[Stage.FETCH] / "base", prune / "model", prune / "pruning_masks.safetensors")


def test_the_candidate_whose_probe_helps_most_comes_out(tmp_path: Path) -> None:
    asked = _probed_request(tmp_path)
    inputs = _pruned(tmp_path, asked)
    align.run(asked, inputs, tmp_path / "out", RecordingContext())
    report = _report(tmp_path / "out")
    losses = {check["step"]: check["loss"] for check in report["checks"]}
    assert list(losses) == check_steps(8, 3)
    assert len(set(losses.values())) == 3
    assert report["step"] == min(losses, key=lambda step: losses[step])
    chosen = load_file(tmp_path / "out" / "state" / f"after-step-{report['step']}.safetensors")
    for name, weight in _model(tmp_path / "out").items():
        assert name == "lm_head.weight" or torch.equal(weight, chosen[f"weights.{name}"].bfloat16())
    align.run(_probed_request(tmp_path, stop="end"), inputs, tmp_path / "end", RecordingContext())
    last = load_file(tmp_path / "out" / "state" / "after-step-8.safetensors")
    for name, weight in _model(tmp_path / "end").items():
        assert name == "lm_head.weight" or torch.equal(weight, last[f"weights.{name}"].bfloat16())


def test_probes_train_on_the_weights_that_would_be_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 4 bits by default; with scheme none as they are."""
    seen: list[bool] = []

    def record(model: Path, *rest: Any, **named: Any) -> Any:
        seen.append("quantization_config" in json.loads((model / "config.json").read_bytes()))
        return train_probe(model, *rest, **named)

    monkeypatch.setattr(probing, "train_probe", record)
    asked = _probed_request(tmp_path, checks=1)
    inputs = _pruned(tmp_path, asked)
    align.run(asked, inputs, tmp_path / "nf4", RecordingContext())
    plain = asked.recipe.model_copy(update={"quantization": Quantization(scheme=Scheme.NONE)})
    align.run(replace(asked, recipe=plain), inputs, tmp_path / "none", RecordingContext())
    assert seen == [True, False]


@pytest.mark.long
def test_cancelled_among_the_probes_it_goes_on_with_the_next(tmp_path: Path) -> None:
    asked = _probed_request(tmp_path)
    inputs = _pruned(tmp_path, asked)
    align.run(asked, inputs, tmp_path / "whole", RecordingContext())
    with pytest.raises(JobCancelled):
        align.run(asked, inputs, tmp_path / "cut", CancelledAfterAProbe())
    context = RecordingContext()
    align.run(asked, inputs, tmp_path / "cut", context)
    assert sum(PROBED in message for message in context.messages) == 2
    assert _report(tmp_path / "cut")["checks"] == _report(tmp_path / "whole")["checks"]
    whole, cut = _model(tmp_path / "whole"), _model(tmp_path / "cut")
    assert all(torch.equal(cut[name], weight) for name, weight in whole.items())


@pytest.mark.parametrize(
    ("method", "trainable"),
    [
        ("structured", "low_rank"),
        ("unstructured", "all"),
        pytest.param("unstructured", "low_rank", marks=pytest.mark.long),
    ],
)
def test_probes_choose_whatever_was_pruned_and_trained(tmp_path: Path, method: str, trainable: str) -> None:
    single = {"method": "unstructured", "criterion": "magnitude", "ratio": 0.5} | PROTECT_NONE
    pruning = PRUNING if method == "structured" else single
    asked = _probed_request(tmp_path, pruning, trainable=trainable, rank=4, checks=2)
    align.run(asked, _pruned(tmp_path, asked), tmp_path / "out", RecordingContext())
    assert [check["step"] for check in _report(tmp_path / "out")["checks"]] == [4, 8]
    assert _model(tmp_path / "out").keys() == load_file(tmp_path / "base" / "model.safetensors").keys()


def test_probe_and_measured_text_are_of_different_training_documents(tmp_path: Path) -> None:
    prose(tmp_path / "prose.jsonl", documents=60)
    corpus = CorpusSource(name="prose", path=tmp_path / "prose.jsonl")
    text = candidates_text(corpus, byte_tokenizer(), ProbeBudget(**(PROBE | {"steps": 500})))
    documents = list(dict.fromkeys(corpus.documents(Split.TRAIN)))
    measured = byte_tokenizer().decode(text.measured.flatten()).split("</s>")[:-1]
    training = byte_tokenizer().decode(text.training.flatten()).split("</s>")[:-1]
    assert measured == documents[::5][: len(measured)]
    assert set(training) <= set(documents) - set(measured)


def test_one_document_is_too_few_for_probes(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("the whale swims " * 100)
    corpus = CorpusSource(name="one", path=tmp_path / "one.txt", held_out_fraction=0)
    with pytest.raises(RequestFault, match="corpus one has too few training documents"):
        candidates_text(corpus, byte_tokenizer(), ProbeBudget(**PROBE))


def test_the_digest_depends_on_the_probe_if_it_decides(tmp_path: Path) -> None:
    digests = {}
    for stop in ("probe", "end"):
        asked = _probed_request(tmp_path, stop=stop)
        evaluation = asked.recipe.evaluation
        assert evaluation is not None
        other = evaluation.model_copy(update={"probe_budget": ProbeBudget(**(PROBE | {"rank": 5}))})
        changed = replace(asked, recipe=asked.recipe.model_copy(update={"evaluation": other}))
        before = {Stage.FETCH: "fetched", Stage.PRUNE: "pruned"}
        digests[stop] = align.digest(asked, before) == align.digest(changed, before)
    assert digests == {"probe": False, "end": True}

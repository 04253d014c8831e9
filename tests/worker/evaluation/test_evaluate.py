from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig, MixtralForCausalLM

from publisher.checkpoint.recovery import merge_folder
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.corpus.source import CorpusSource, Split
from publisher.errors import JobCancelled, RequestFault
from publisher.manifest.evaluation import EvaluationReport
from publisher.manifest.verdict import Verdict
from publisher.recipe import STRENGTHS, Pruning, Recipe
from publisher.recipe.stages import Stage
from tests.devices import each_device
from tests.models import TINY, byte_tokenizer, tiny_llama
from tests.worker.stages.building import PRUNING, prose, request_for
from worker.context import RecordingContext
from worker.evaluation.perplexity import cut_windows, perplexity
from worker.models.device import Device
from worker.probe.probe import train_probe
from worker.probe.text import certificate_text
from worker.request import BuildRequest
from worker.stages.evaluate import EVALUATE, digest, evaluate
from worker.stages.inputs import EvaluateInputs
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore

PROBE = {"steps": 12, "batch_size": 2, "sequence_length": 32, "rank": 4, "learning_rate": 1e-2}


def _request(folder: Path, *, scheme: str = "nf4", align: bool = True, **evaluation: Any) -> BuildRequest:
    alignment = {"corpora": [{"name": "prose"}], "tokens": 256, "batch_tokens": 64, "sequence_length": 32}
    recipe = {
        "pruning": PRUNING,
        "alignment": alignment if align else None,
        "quantization": {"scheme": scheme},
        "evaluation": {"corpora": ["prose"], "sequence_length": 32, "tokens": 300, "probe_budget": PROBE} | evaluation,
    }
    if not (folder / "base").exists():
        tiny_llama(folder / "base")
        prose(folder / "prose.jsonl", documents=100)
    return request_for(folder / "base", folder / "prose.jsonl", Recipe.model_validate(recipe))


def _evaluate(folder: Path, request: BuildRequest) -> tuple[dict[Stage, Path], EvaluationReport, RecordingContext]:
    contexts: dict[Stage, RecordingContext] = {}
    folders = run_pipeline(
        request, StageStore(folder / "stages"), lambda s: contexts.setdefault(s, RecordingContext()), Stage.EVALUATE
    )
    report = EvaluationReport.model_validate_json((folders[Stage.EVALUATE] / "evaluation.json").read_text())
    return folders, report, contexts[Stage.EVALUATE]


@each_device
def test_certificate_is_what_plain_peft_measures_on_the_base_model(tmp_path: Path, device: str) -> None:
    """All stages on the device; what is measured in bf16 there is measured anew in fp32 here."""
    request = replace(_request(tmp_path), device=device)
    near = {"cpu": 0, "cuda": 2e-2}[device]
    folders, report, context = _evaluate(tmp_path, request)
    certificate = report.certificate
    assert certificate is not None

    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    windows = cut_windows(request.corpora["prose"].documents(Split.HELD_OUT), tokenizer, 32, 300)
    assert certificate.base == report.perplexity["prose"].base
    assert certificate.base == pytest.approx(perplexity(base, windows, lambda _: None), rel=near)
    adapted = PeftModel.from_pretrained(base, folders[Stage.EVALUATE] / "probe").eval()
    measured = perplexity(adapted.get_base_model(), windows, lambda _: None)
    assert certificate.recovered == pytest.approx(measured, rel=max(near, 1e-6))
    assert certificate.recovered_perplexity == {"prose": certificate.recovered}
    assert certificate.improves
    assert certificate.gain > 1
    assert context.fraction == 1.0

    tried = certificate.tried_strengths
    assert [each.strength for each in tried] == list(STRENGTHS)
    least = min(each.loss for each in tried)
    assert [each.error for each in tried if each.loss == least] == [0.0]
    assert certificate.strength == next(each.strength for each in tried if each.loss <= least + each.error)
    assert adapted.peft_config["default"].lora_alpha == 2 * PROBE["rank"] * certificate.strength


def test_report_has_every_form_and_what_the_probe_took(tmp_path: Path) -> None:
    folders, report, context = _evaluate(tmp_path, _request(tmp_path))
    forms = report.perplexity["prose"]
    assert forms.aligned is not None
    assert len({forms.base, forms.pruned, forms.aligned, forms.quantized}) == 4
    assert report.held_out_tokens == {"prose": 300}
    assert report.bytes.base == (tmp_path / "base" / "model.safetensors").stat().st_size
    assert report.bytes.quantized == (folders[Stage.QUANTIZE] / "model" / "model.safetensors").stat().st_size
    assert report.certificate is not None
    assert report.certificate.training.tokens == 12 * 2 * 32
    assert report.certificate.training.peak_memory_bytes > 0
    names = [name for name, _, _ in context.metrics]
    assert [names.count(name) for name in ("perplexity", "probe_loss", "direct_loss")] == [6, 12, 12]
    forms = ("base", "pruned", "aligned", "published", "recovered", "direct")
    assert [name for name in names if "/" in name] == [f"perplexity/{form}/prose" for form in forms]
    written = json.loads((folders[Stage.EVALUATE] / "evaluation.json").read_text())
    assert written["certificate"]["improves"] is True
    losses = json.loads((folders[Stage.EVALUATE] / "probe_losses.json").read_text())
    told = [value for name, _, value in context.metrics if name == "direct_loss"]
    assert losses["direct_loss"] == told
    assert len(losses["probe_loss"]) == 12


@pytest.mark.parametrize(
    ("probe", "held_out", "verdict"),
    [
        ({"steps": 2, "learning_rate": 1e-6}, 0.1, Verdict.NEGLIGIBLE),
        pytest.param({"steps": 12, "learning_rate": 1e-12}, 0.1, None, marks=pytest.mark.long),
        ({"steps": 12}, 0.1, Verdict.PASSED),
        pytest.param({"steps": 12}, 0.065, Verdict.INCONCLUSIVE, marks=pytest.mark.long),
    ],
    ids=["two steps", "nothing learnt", "a real one", "seven documents"],
)
def test_certificate_tells_a_probe_that_helps_from_one_that_does_not(
    tmp_path: Path, probe: dict[str, Any], held_out: float, verdict: Verdict | None
) -> None:
    request = _request(
        tmp_path, scheme="none", align=False, direct=False, gradient_fidelity=False, probe_budget=PROBE | probe
    )
    corpus = request.corpora["prose"].model_copy(update={"held_out_fraction": held_out})
    request = BuildRequest(base=request.base, recipe=request.recipe, corpora={"prose": corpus})
    folders, report, context = _evaluate(tmp_path, request)
    certificate = report.certificate
    assert certificate is not None
    assert certificate.difference is not None
    assert certificate.difference.documents == math.ceil(100 * held_out)
    assert certificate.difference.mean == pytest.approx(math.log(certificate.base / certificate.recovered), abs=1e-9)
    if verdict is None:
        assert certificate.verdict in {Verdict.NEGLIGIBLE, Verdict.NOT_SIGNIFICANT, Verdict.FAILED}
    else:
        assert certificate.verdict is verdict
    assert certificate.improves is (verdict is Verdict.PASSED)
    assert f"Certificate {certificate.verdict.words}: {certificate.reason}." in context.messages
    written = json.loads((folders[Stage.EVALUATE] / "document_losses.json").read_text())["prose"]
    gains = [a - b for a, b in zip(written["nats"]["base"], written["nats"]["recovered"], strict=True)]
    assert certificate.difference.mean == pytest.approx(sum(gains) / sum(written["tokens"]), abs=1e-12)


def test_upper_bound_is_the_same_lora_trained_on_the_base_model(tmp_path: Path) -> None:
    request = _request(tmp_path, scheme="none", align=False)
    folders, report, _ = _evaluate(tmp_path, request)
    certificate, evaluation = report.certificate, request.recipe.evaluation
    assert certificate is not None
    assert evaluation is not None
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    train_probe(
        tmp_path / "base",
        certificate_text(request.corpora["prose"], tokenizer, evaluation.probe_budget).training,
        evaluation.probe_budget,
        tmp_path / "direct",
        device=torch.device("cpu"),
        seed=request.recipe.seed,
        on_step=lambda step, loss: None,
        check=lambda: None,
    )
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, tmp_path / "direct").eval()
    windows = cut_windows(request.corpora["prose"].documents(Split.HELD_OUT), tokenizer, 32, 300)
    measured = perplexity(adapted.get_base_model(), windows, lambda _: None)
    assert certificate.direct == pytest.approx(measured, rel=1e-6)
    assert certificate.direct is not None
    assert certificate.direct_training is not None
    assert certificate.direct_training.tokens == certificate.training.tokens
    retained = (certificate.base - certificate.recovered) / (certificate.base - certificate.direct)
    assert certificate.gain_retained == retained
    assert certificate.gain_retained_by_corpus == {"prose": retained}
    assert not (folders[Stage.EVALUATE] / "direct").exists()


@pytest.mark.long
def test_a_sweep_trains_its_upper_bound_once(tmp_path: Path) -> None:
    _, first, _ = _evaluate(tmp_path, _request(tmp_path, align=False))
    folders, second, context = _evaluate(tmp_path, _request(tmp_path, scheme="none", align=False))
    assert first.certificate is not None
    assert second.certificate is not None
    assert second.certificate.direct == first.certificate.direct
    assert second.certificate.direct_training == first.certificate.direct_training
    assert second.certificate.recovered != first.certificate.recovered
    assert "direct_loss" not in {name for name, _, _ in context.metrics}
    assert context.fraction == 1.0
    losses = json.loads((folders[Stage.EVALUATE] / "probe_losses.json").read_text())
    assert len(losses["direct_loss"]) == 12
    another = _request(tmp_path, align=False, probe_budget=PROBE | {"rank": 2})
    assert "direct_loss" in {name for name, _, _ in _evaluate(tmp_path, another)[2].metrics}


@pytest.mark.long
def test_without_memory_for_it_the_certificate_has_no_upper_bound_and_says_so(tmp_path: Path) -> None:
    request, context = _request(tmp_path, scheme="none", align=False), RecordingContext()
    folders, _, _ = _evaluate(tmp_path, request)
    inputs = EvaluateInputs(
        base=folders[Stage.FETCH] / "base",
        pruned=folders[Stage.PRUNE] / "model",
        aligned=None,
        quantized=folders[Stage.QUANTIZE] / "model",
        masks=folders[Stage.PRUNE] / "pruning_masks.safetensors",
    )
    (tmp_path / "small").mkdir()
    evaluate(request, inputs, tmp_path / "small", context, Device("cpu", "small", 10**6))
    written = json.loads((tmp_path / "small" / "evaluation.json").read_text())["certificate"]
    assert written["improves"]
    assert [written[key] for key in ("direct", "direct_perplexity", "direct_training", "gain_retained")] == [None] * 4
    assert any("no upper bound" in message for message in context.messages)
    assert context.fraction == 1.0


def test_nothing_is_measured_again_because_a_certificate_is_or_is_not_required(tmp_path: Path) -> None:
    before = {stage: stage.value for stage in EVALUATE.needs if stage is not Stage.ALIGN}
    required, waived, other = (
        digest(request, before)
        for request in (
            _request(tmp_path),
            _request(tmp_path, require_certificate=False),
            _request(tmp_path, direct=False),
        )
    )
    assert required == waived
    assert required != other


@pytest.mark.long
def test_recovered_probe_has_the_base_model_s_shapes_and_name(tmp_path: Path) -> None:
    request = _request(tmp_path)
    folders, _, _ = _evaluate(tmp_path, request)
    probe = folders[Stage.EVALUATE] / "probe"
    with safe_open(probe / "adapter_model.safetensors", framework="pt") as file:
        widened = file.get_tensor("base_model.model.model.layers.1.mlp.up_proj.lora_B.weight")
    assert widened.shape == (48, 4)
    with safe_open(folders[Stage.PRUNE] / "model" / "model.safetensors", framework="pt") as file:
        kept = file.get_slice("model.layers.1.mlp.up_proj.weight").get_shape()[0]
    assert kept < 48
    assert int((widened.abs().sum(-1) != 0).sum()) == kept
    config = json.loads((probe / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == request.base.public_name
    assert not (folders[Stage.EVALUATE] / "trained").exists()


def test_probe_on_a_checkpoint_that_lost_single_weights_is_trained_and_measured_masked(tmp_path: Path) -> None:
    request = _request(tmp_path, scheme="none", align=False)
    sparse = {"method": "semi_structured", "criterion": "magnitude", "protect_first": 1, "protect_last": 1}
    recipe = request.recipe.model_copy(update={"pruning": Pruning.model_validate(sparse)})
    request = BuildRequest(base=request.base, recipe=recipe, corpora=request.corpora)
    folders, report, _ = _evaluate(tmp_path, request)
    assert report.certificate is not None
    masks = folders[Stage.PRUNE] / "pruning_masks.safetensors"
    merge_folder(folders[Stage.EVALUATE] / "probe", tmp_path / "merged", WeightMasks(masks), tmp_path / "base")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    windows = cut_windows(request.corpora["prose"].documents(Split.HELD_OUT), tokenizer, 32, 300)
    assert report.certificate.recovered == pytest.approx(perplexity(merged, windows, lambda _: None), rel=1e-5)


@pytest.mark.long
def test_probe_of_a_mixture_trains_what_can_be_recovered(tmp_path: Path) -> None:
    torch.manual_seed(0)
    MixtralForCausalLM(MixtralConfig(**TINY, num_local_experts=4, bos_token_id=256, eos_token_id=257)).save_pretrained(
        tmp_path / "base"
    )
    byte_tokenizer().save_pretrained(tmp_path / "base")
    prose(tmp_path / "prose.jsonl", documents=100)
    pruning = PRUNING | {"criterion": "magnitude", "calibration": None}
    request = _request(tmp_path, scheme="none", align=False)
    recipe = request.recipe.model_copy(update={"pruning": Pruning.model_validate(pruning)})
    _, report, _ = _evaluate(tmp_path, BuildRequest(base=request.base, recipe=recipe, corpora=request.corpora))
    assert report.certificate is not None
    assert report.certificate.improves
    assert report.certificate.gain_retained is not None
    assert report.gradient_fidelity is not None
    assert 0.2 < report.gradient_fidelity.mean < 1


def test_without_probe_and_alignment_there_is_no_certificate_and_no_aligned_form(tmp_path: Path) -> None:
    _, report, context = _evaluate(tmp_path, _request(tmp_path, scheme="none", align=False, probe=False))
    assert report.certificate is None
    assert report.perplexity["prose"].aligned is None
    assert report.perplexity["prose"].quantized == report.perplexity["prose"].pruned
    assert context.fraction == 1.0


def test_a_corpus_without_held_out_text_is_refused(tmp_path: Path) -> None:
    request = _request(tmp_path, scheme="none", align=False)
    request = BuildRequest(
        base=request.base,
        recipe=request.recipe,
        corpora={"prose": CorpusSource(name="prose", path=tmp_path / "prose.jsonl", held_out_fraction=0)},
    )
    with pytest.raises(RequestFault, match="corpus prose has no held-out text"):
        _evaluate(tmp_path, request)


def test_a_corpus_that_is_all_held_out_cannot_train_a_probe(tmp_path: Path) -> None:
    request = _request(tmp_path, scheme="none", align=False)
    everything = CorpusSource(name="prose", path=tmp_path / "prose.jsonl", held_out_fraction=1)
    recipe = request.recipe.model_copy(
        update={
            "pruning": request.recipe.pruning.model_validate(
                {"criterion": "random", "ratio": 0.5, "protect_first": 1, "protect_last": 1}
            )
        }
    )
    with pytest.raises(RequestFault, match="less text to train the probe on than one sequence"):
        _evaluate(tmp_path, BuildRequest(base=request.base, recipe=recipe, corpora={"prose": everything}))


def test_cancel_reaches_the_probe(tmp_path: Path) -> None:
    class CancelledInProbe(RecordingContext):
        def check(self) -> None:
            if any(name == "probe_loss" for name, _, _ in self.metrics):
                raise JobCancelled("cancelled by the test.")

    contexts = {Stage.EVALUATE: CancelledInProbe()}
    with pytest.raises(JobCancelled):
        run_pipeline(
            _request(tmp_path, scheme="none", align=False),
            StageStore(tmp_path / "stages"),
            lambda stage: contexts.get(stage, RecordingContext()),
            Stage.EVALUATE,
        )
    assert sum(name == "probe_loss" for name, _, _ in contexts[Stage.EVALUATE].metrics) == 1

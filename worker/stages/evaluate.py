"""evaluate: perplexity of every form of the model, the certificate, gradient fidelity, and harness tasks.

Writes `evaluation.json` (publisher.manifest.evaluation) and, with a certificate, `probe/`: the recovered adapter that
was measured, and `probe_losses.json`: the losses of its training and of the direct one by step, in nats per token.
`document_losses.json`: corpus → `tokens` scored of each held-out document, and `nats` of each form, summed over them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from publisher.corpus.source import CorpusSource
from publisher.errors import RequestFault
from publisher.manifest import reports
from publisher.manifest.evaluation import EvaluationReport, Perplexities, WeightBytes
from publisher.recipe import STRENGTHS, Evaluation
from publisher.recipe.stages import Stage
from worker.context import StageContext
from worker.evaluation.certificate import FIDELITY_STEPS, ProbedPaths, Prober
from worker.evaluation.held_out_text import held_out_documents
from worker.evaluation.lora_memory import lora_memory
from worker.evaluation.measuring import Form, Measuring, Windows
from worker.evaluation.perplexity import DocumentLosses, Window, cut_windows, scored_tokens
from worker.evaluation.tasks import HarnessTasks
from worker.models.causal import load_causal
from worker.models.device import Device, choose_device
from worker.probe.text import ProbeText, certificate_text
from worker.quantization.nf4 import load_published
from worker.request import BuildRequest
from worker.stages.base_folder import refuse_unknown_tokens
from worker.stages.inputs import EvaluateInputs
from worker.stages.spec import Digests, StageSpec
from worker.storage.folder import write_json
from worker.storage.store import stage_digest
from worker.streaming.weights import read_geometry
from worker.text.tokenizer import load_tokenizer

VERSION = 5
REPORT, LOSSES, DOCUMENTS = "evaluation.json", "probe_losses.json", "document_losses.json"


def digest(request: BuildRequest, digests: Digests) -> str:
    """Of all that is measured: whether a certificate is required to publish changes no number."""
    evaluation = request.evaluation
    dependencies = {
        "fetch": digests[Stage.FETCH],
        "prune": digests[Stage.PRUNE],
        "align": digests.get(Stage.ALIGN),
        "quantize": digests[Stage.QUANTIZE],
        "evaluation": evaluation.model_dump(mode="json", exclude={"require_certificate"}),
        "corpora": {name: request.corpora[name].content_digest() for name in evaluation.corpora},
        "seed": request.recipe.seed,
    }
    if evaluation.tasks:
        dependencies["tasks"] = _tasks(request).content_digest()
    return stage_digest(Stage.EVALUATE, VERSION, dependencies)


def run(request: BuildRequest, inputs: EvaluateInputs, output: Path, context: StageContext) -> None:
    """Raises RequestFault if a corpus holds no text for it, or if a model's perplexity is no number."""
    evaluate(request, inputs, output, context, choose_device(request.device))


def evaluate(
    request: BuildRequest, inputs: EvaluateInputs, output: Path, context: StageContext, device: Device
) -> None:
    """`run` on a device with as much memory as `device` says."""
    evaluation = request.evaluation
    tokenizer = load_tokenizer(inputs.base)
    windows = {name: _held_out(request.corpora[name], evaluation, tokenizer) for name in evaluation.corpora}
    text = None
    if evaluation.probe:
        text = certificate_text(request.corpora[evaluation.corpora[0]], tokenizer, evaluation.probe_budget)
    read = [window.tokens for cut in windows.values() for window in cut]
    refuse_unknown_tokens(inputs.base, *read, *([text.training, text.measured] if text else []))
    on_base = evaluation.probe and _base_trains(inputs.base, evaluation, device, context)
    tasks = _tasks(request)
    tasks.load()
    measuring = Measuring(context, _amount(evaluation, inputs, windows, text, on_base=on_base), tasks, tokenizer)
    measured = _measure_forms(inputs, windows, torch.device(device.name), measuring)
    report = EvaluationReport(
        perplexity=_perplexities(measured),
        held_out_tokens={name: scored_tokens(cut) for name, cut in windows.items()},
        bytes=_weight_bytes(inputs),
    )
    if text is not None:
        prober = Prober(
            base=request.base,
            paths=ProbedPaths(inputs.base, inputs.quantized, inputs.masks, inputs.kept),
            output=output,
            evaluation=evaluation,
            text=text,
            measuring=measuring,
            device=torch.device(device.name),
            seed=request.recipe.seed,
            on_base=on_base,
        )
        found = {"certificate": prober.certify(windows, measured["base"]), "gradient_fidelity": prober.fidelity()}
        report = report.model_copy(update=found)
        write_json(output / LOSSES, measuring.losses)
    report = report.model_copy(update={"tasks": measuring.task_results})
    write_json(output / DOCUMENTS, _by_document(measuring, measured["base"]))
    (output / REPORT).write_text(json.dumps(report.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")


def _tasks(request: BuildRequest) -> HarnessTasks:
    evaluation = request.evaluation
    return HarnessTasks(evaluation.tasks, evaluation.task_limit, request.tasks_folder, request.recipe.seed)


def _held_out(corpus: CorpusSource, evaluation: Evaluation, tokenizer: PreTrainedTokenizerBase) -> list[Window]:
    documents = held_out_documents(corpus)
    windows = cut_windows(documents, tokenizer, evaluation.sequence_length, evaluation.tokens, evaluation.stride)
    if not windows:
        raise RequestFault(
            f"corpus {corpus.name} has no held-out text (held_out_fraction {corpus.held_out_fraction}).",
            field="recipe.evaluation.corpora",
            way_out="Register it with a larger held_out_fraction, or evaluate on another corpus.",
        )
    return windows


def _base_trains(base: Path, evaluation: Evaluation, device: Device, context: StageContext) -> bool:
    """Whether the base model fits for training a LoRA on it."""
    if not (evaluation.direct or evaluation.gradient_fidelity):
        return False
    needed = lora_memory(read_geometry(base), evaluation.probe_budget, torch.device(device.name))
    if needed > device.memory:
        context.log(
            f"Training a LoRA on the base model would take about {needed / 2**30:.1f} GiB, and {device.name} has "
            f"{device.memory / 2**30:.1f} GiB. So the certificate has no upper bound, and no gradient fidelity."
        )
    return needed <= device.memory


def _amount(
    evaluation: Evaluation, inputs: EvaluateInputs, windows: Windows, text: ProbeText | None, *, on_base: bool
) -> int:
    once = sum(len(cut) for cut in windows.values())
    forms = 3 if inputs.aligned is None else 4
    trainings = evaluation.probe + (evaluation.direct and on_base)
    fidelity = FIDELITY_STEPS * (evaluation.gradient_fidelity and on_base)
    strengths = 0 if text is None else len(STRENGTHS) * len(text.measured)
    return forms * once + trainings * (evaluation.probe_budget.steps + once) + fidelity + strengths


def _measure_forms(
    inputs: EvaluateInputs, windows: Windows, device: torch.device, measuring: Measuring
) -> dict[str, dict[str, DocumentLosses]]:
    """Form → corpus → losses. One model in memory at a time, on all corpora."""
    folders = {Form.BASE: inputs.base, Form.PRUNED: inputs.pruned, Form.ALIGNED: inputs.aligned}
    measured = {
        form.name.lower(): measuring.measure(form, load_causal(folder, device), windows)
        for form, folder in folders.items()
        if folder is not None
    }
    published = load_published(inputs.quantized, device)
    measured["quantized"] = measuring.measure(Form.PUBLISHED, published, windows)
    return measured


def _perplexities(measured: Mapping[str, Mapping[str, DocumentLosses]]) -> dict[str, Perplexities]:
    return {
        corpus: Perplexities.model_validate({form: losses[corpus].perplexity for form, losses in measured.items()})
        for corpus in measured["base"]
    }


def _by_document(measuring: Measuring, base: Mapping[str, DocumentLosses]) -> dict[str, object]:
    found = {
        corpus: reports.DocumentLosses(tokens=list(losses.tokens), nats=measuring.document_nats[corpus])
        for corpus, losses in base.items()
    }
    return {corpus: losses.model_dump(mode="json") for corpus, losses in found.items()}


def _weight_bytes(inputs: EvaluateInputs) -> WeightBytes:
    return WeightBytes(
        base=_safetensors_bytes(inputs.base),
        pruned=_safetensors_bytes(inputs.pruned),
        aligned=None if inputs.aligned is None else _safetensors_bytes(inputs.aligned),
        quantized=_safetensors_bytes(inputs.quantized),
    )


def _safetensors_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


EVALUATE = StageSpec(
    name=Stage.EVALUATE,
    needs=(Stage.FETCH, Stage.PRUNE, Stage.ALIGN, Stage.QUANTIZE),
    inputs=EvaluateInputs.of,
    digest=digest,
    run=run,
    reads_text=True,
)

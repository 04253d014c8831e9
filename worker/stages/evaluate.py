"""evaluate: perplexity of every form of the model, and the certificate.

Writes `evaluation.json` (publisher.checkpoint.evaluation) and, with a certificate, `probe/`: the recovered adapter that
was measured.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from publisher.checkpoint.evaluation import (
    Certificate,
    CertificateBudget,
    EvaluationReport,
    Perplexities,
    ProbeTraining,
    WeightBytes,
)
from publisher.checkpoint.recovery import recover_folder
from publisher.checkpoint.weight_masks import WeightMasks, open_masks
from publisher.corpus import CorpusSource, Split
from publisher.errors import RequestFault
from publisher.recipe import Evaluation
from worker.alignment.data import pack_tokens
from worker.causal import load_causal
from worker.evaluation.perplexity import cut_windows, perplexity, scored_tokens
from worker.evaluation.probe import load_with_adapter, train_probe
from worker.quantization.nf4 import load_published
from worker.stages.context import Stage, StageContext
from worker.stages.inputs import EvaluateInputs
from worker.stages.request import BuildRequest
from worker.stages.store import stage_digest

VERSION = 1
REPORT, PROBE = "evaluation.json", "probe"

#: corpus → its held-out windows
Windows = Mapping[str, Sequence[Tensor]]


def digest(request: BuildRequest, fetch: str, prune: str, align: str | None, quantize: str) -> str:
    evaluation = _recipe(request)
    dependencies = {
        "fetch": fetch,
        "prune": prune,
        "align": align,
        "quantize": quantize,
        "evaluation": evaluation.model_dump(mode="json"),
        "corpora": {name: request.corpora[name].content_digest() for name in evaluation.corpora},
        "seed": request.recipe.seed,
    }
    return stage_digest(Stage.EVALUATE, VERSION, dependencies)


def run(request: BuildRequest, inputs: EvaluateInputs, output: Path, context: StageContext) -> None:
    """Raises RequestFault if a corpus holds no text for it, or if a model's perplexity is no number."""
    evaluation = _recipe(request)
    tokenizer = AutoTokenizer.from_pretrained(inputs.base, local_files_only=True)
    windows = {name: _held_out(request.corpora[name], evaluation, tokenizer) for name in evaluation.corpora}
    work = _Work(context, _amount(evaluation, inputs, windows))
    measured = _measure_forms(inputs, windows, torch.device(request.device), work)
    certificate = None
    if evaluation.probe:
        prober = _Prober(request, inputs, output, work)
        certificate = prober.certify(tokenizer, windows, measured[evaluation.corpora[0]].base)
    report = EvaluationReport(
        perplexity=measured,
        held_out_tokens={name: scored_tokens(cut) for name, cut in windows.items()},
        bytes=_weight_bytes(inputs),
        certificate=certificate,
    )
    (output / REPORT).write_text(json.dumps(report.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")


def _recipe(request: BuildRequest) -> Evaluation:
    assert request.recipe.evaluation is not None, "the pipeline skips evaluate without a recipe for it"
    return request.recipe.evaluation


def _held_out(corpus: CorpusSource, evaluation: Evaluation, tokenizer: PreTrainedTokenizerBase) -> list[Tensor]:
    documents = corpus.documents(Split.HELD_OUT)
    windows = cut_windows(documents, tokenizer, evaluation.sequence_length, evaluation.tokens)
    if not windows:
        raise RequestFault(
            f"corpus {corpus.name} has no held-out text (held_out_fraction {corpus.held_out_fraction}).",
            field="recipe.evaluation.corpora",
            way_out="Register it with a larger held_out_fraction, or evaluate on another corpus.",
        )
    return windows


@dataclass
class _Work:
    """Progress through everything that evaluate does, in windows scored and probe steps trained."""

    context: StageContext
    total: int
    done: int = 0
    points: int = 0

    def advance(self, count: int) -> None:
        self.done += count
        self.context.progress(self.done, self.total, "windows, steps")

    def measure(self, name: str, model: PreTrainedModel, windows: Windows) -> dict[str, float]:
        """Perplexity of `model` on each corpus, told to the context."""
        found = {}
        for corpus, cut in windows.items():
            value = perplexity(model, cut, self.advance)
            _refuse_no_number(name, corpus, value)
            self.points += 1
            self.context.metric("perplexity", self.points, value)
            self.context.log(f"Perplexity of the {name} on {corpus}: {value:.2f}.")
            found[corpus] = value
        return found


def _amount(evaluation: Evaluation, inputs: EvaluateInputs, windows: Windows) -> int:
    once = sum(len(cut) for cut in windows.values())
    forms = 3 if inputs.aligned is None else 4
    return forms * once + (evaluation.probe_budget.steps + once if evaluation.probe else 0)


def _measure_forms(
    inputs: EvaluateInputs, windows: Windows, device: torch.device, work: _Work
) -> dict[str, Perplexities]:
    """One model in memory at a time, on all corpora."""
    forms = {"base": inputs.base, "pruned": inputs.pruned, "aligned": inputs.aligned}
    measured = {
        form: work.measure(f"{form} model", load_causal(folder, device), windows)
        for form, folder in forms.items()
        if folder is not None
    }
    measured["quantized"] = work.measure("quantized model", load_published(inputs.quantized, device), windows)
    return {
        corpus: Perplexities.model_validate({form: values[corpus] for form, values in measured.items()})
        for corpus in windows
    }


def _refuse_no_number(name: str, corpus: str, value: float) -> None:
    if not math.isfinite(value):
        raise RequestFault(
            f"the perplexity of the {name} on {corpus} is {value}.",
            field="recipe",
            way_out="Prune less, or align longer or with a lower learning rate.",
        )


@dataclass(frozen=True)
class _Prober:
    """Makes the certificate: train on the checkpoint, recover, measure on the base model."""

    request: BuildRequest
    inputs: EvaluateInputs
    output: Path
    work: _Work

    def certify(self, tokenizer: PreTrainedTokenizerBase, windows: Windows, base: float) -> Certificate:
        evaluation, device = _recipe(self.request), torch.device(self.request.device)
        training = self._train(tokenizer, evaluation, device)
        adapted = load_with_adapter(self.inputs.base, self.output / PROBE, device, self._weight_masks())
        recovered = self.work.measure("base model with the recovered adapter", adapted, windows)
        return Certificate(
            corpus=evaluation.corpora[0],
            budget=CertificateBudget.model_validate(evaluation.probe_budget.model_dump()),
            base=base,
            recovered=recovered[evaluation.corpora[0]],
            training=training,
            recovered_perplexity=recovered,
        )

    def _train(self, tokenizer: PreTrainedTokenizerBase, evaluation: Evaluation, device: torch.device) -> ProbeTraining:
        trained = self.output / "trained"
        training = train_probe(
            self.inputs.quantized,
            self._sequences(tokenizer, evaluation),
            evaluation.probe_budget,
            trained,
            device=device,
            seed=self.request.recipe.seed,
            on_step=self._on_step,
            check=self.work.context.check,
            masks=self._weight_masks(),
        )
        self._recover(trained)
        shutil.rmtree(trained)
        return training

    def _weight_masks(self) -> WeightMasks | None:
        masks = open_masks(self.inputs.masks)
        return masks if isinstance(masks, WeightMasks) else None

    def _on_step(self, step: int, loss: float) -> None:
        self.work.context.metric("probe_loss", step, loss)
        self.work.advance(1)

    def _sequences(self, tokenizer: PreTrainedTokenizerBase, evaluation: Evaluation) -> Tensor:
        corpus, budget = self.request.corpora[evaluation.corpora[0]], evaluation.probe_budget
        needed = budget.steps * budget.batch_size
        sequences = pack_tokens(corpus.documents(Split.TRAIN), tokenizer, budget.sequence_length, needed)
        if not len(sequences):
            raise RequestFault(
                f"corpus {corpus.name} has less text to train the probe on than one sequence of "
                f"{budget.sequence_length} tokens.",
                field="recipe.evaluation.probe_budget.sequence_length",
                way_out="Shorten it, add text, or set evaluation.probe to false.",
            )
        return sequences

    def _recover(self, trained: Path) -> None:
        """Where single weights were pruned no adapter holds the masked update: the base model masks it again."""
        base, masks = self.request.base, open_masks(self.inputs.masks)
        if isinstance(masks, WeightMasks):
            shutil.copytree(trained, self.output / PROBE)
            return
        revision = base.revision if base.path is None else None
        recover_folder(trained, self.output / PROBE, masks, base.repo_id, revision)


def _weight_bytes(inputs: EvaluateInputs) -> WeightBytes:
    return WeightBytes(
        base=_safetensors_bytes(inputs.base),
        pruned=_safetensors_bytes(inputs.pruned),
        aligned=None if inputs.aligned is None else _safetensors_bytes(inputs.aligned),
        quantized=_safetensors_bytes(inputs.quantized),
    )


def _safetensors_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))

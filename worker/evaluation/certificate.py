"""The certificate: train a LoRA on the checkpoint, recover it, and measure it on the base model beside one that was
trained there directly."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from publisher.checkpoint.evaluation import Certificate, CertificateBudget, GradientFidelity, ProbeTraining
from publisher.checkpoint.recovery import recover_folder
from publisher.checkpoint.weight_masks import WeightMasks, open_masks
from publisher.corpus import CorpusSource, Split
from publisher.errors import RequestFault
from publisher.recipe import Evaluation, ProbeBudget
from worker.alignment.data import pack_tokens
from worker.evaluation.direct import DirectAdapter, DirectTraining
from worker.evaluation.fidelity import gradient_fidelity
from worker.evaluation.measuring import Form, Measuring, Windows
from worker.evaluation.probe import load_with_adapter, train_probe
from worker.stages.inputs import EvaluateInputs
from worker.stages.request import BaseModelSource

#: what training is told as, on the checkpoint and on the base model
PROBE_LOSS, DIRECT_LOSS = "probe_loss", "direct_loss"
#: Batches of the probe's text that gradient fidelity looks at, and the steps that it counts for in the progress.
_FIDELITY_BATCHES = 4
FIDELITY_STEPS = 2 * _FIDELITY_BATCHES


def probe_sequences(corpus: CorpusSource, tokenizer: PreTrainedTokenizerBase, budget: ProbeBudget) -> Tensor:
    """What the probe trains on: int32 (n, sequence_length). Raises RequestFault if there is not one sequence."""
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


@dataclass(frozen=True)
class _Side:
    """One of the two LoRAs, measured on the base model."""

    training: ProbeTraining
    perplexity: Mapping[str, float]


@dataclass(frozen=True)
class Prober:
    """`output`: where folder `probe` goes, the recovered adapter that was measured. `sequences` as `probe_sequences`.

    `on_base`: the base model fits for training a LoRA on it, so that what the recipe wants of that can be done.
    """

    base: BaseModelSource
    inputs: EvaluateInputs
    output: Path
    evaluation: Evaluation
    sequences: Tensor
    measuring: Measuring
    device: torch.device
    seed: int
    on_base: bool

    def certify(self, windows: Windows, base: Mapping[str, float]) -> Certificate:
        """`base`: corpus → perplexity of the base model on `windows`."""
        corpus = self.evaluation.corpora[0]
        recovered = self._recovered(windows)
        direct = self._direct(windows) if self.evaluation.direct and self.on_base else None
        return Certificate(
            corpus=corpus,
            budget=CertificateBudget.model_validate(self.evaluation.probe_budget.model_dump()),
            base=base[corpus],
            recovered=recovered.perplexity[corpus],
            training=recovered.training,
            recovered_perplexity=dict(recovered.perplexity),
            base_perplexity=dict(base),
            direct=direct and direct.perplexity[corpus],
            direct_perplexity=direct and dict(direct.perplexity),
            direct_training=direct and direct.training,
        )

    def fidelity(self) -> GradientFidelity | None:
        """None if the recipe does not ask for it or the base model does not fit."""
        if not (self.evaluation.gradient_fidelity and self.on_base):
            return None
        budget, context = self.evaluation.probe_budget, self.measuring.context
        found = gradient_fidelity(
            self.inputs.base,
            self.inputs.quantized,
            open_masks(self.inputs.masks),
            self.sequences[: _FIDELITY_BATCHES * budget.batch_size],
            rank=budget.rank,
            seed=self.seed,
            device=self.device,
            check=context.check,
        )
        context.log(f"Gradient fidelity: {found.mean:.3f} over matrices, {found.whole:.3f} as a whole.")
        self.measuring.advance(FIDELITY_STEPS)
        return found

    def _recovered(self, windows: Windows) -> _Side:
        trained, probe = self.output / "trained", self.output / "probe"
        masks = open_masks(self.inputs.masks)
        weight_masks = masks if isinstance(masks, WeightMasks) else None
        training = self._train(self.inputs.quantized, trained, PROBE_LOSS, weight_masks)
        if isinstance(masks, WeightMasks):  # no adapter holds the masked update: the base model masks it again
            shutil.copytree(trained, probe)
        else:
            revision = self.base.revision if self.base.path is None else None
            recover_folder(trained, probe, masks, self.base.repo_id, revision)
        shutil.rmtree(trained)
        return self._measured(Form.RECOVERED, training, probe, weight_masks, windows)

    def _direct(self, windows: Windows) -> _Side:
        """Trained by the first of a sweep's variants; those after it only measure it."""
        kept = self.inputs.kept or self.output
        budget = self.evaluation.probe_budget
        adapter = DirectAdapter(kept / "direct", self.base, self.sequences, budget, self.seed, str(self.device))
        found = adapter.find()
        if found is None:
            found = adapter.make(self._train_directly)
        else:
            self.measuring.losses[DIRECT_LOSS] = found.losses
            self.measuring.context.log("The LoRA on the base model was trained for another variant; it is measured.")
            self.measuring.advance(budget.steps)
        side = self._measured(Form.DIRECT, found.training, adapter.folder, None, windows)
        if self.inputs.kept is None:
            shutil.rmtree(adapter.root)
        return side

    def _train_directly(self, output: Path) -> DirectTraining:
        training = self._train(self.inputs.base, output, DIRECT_LOSS, None)
        return DirectTraining(training=training, losses=self.measuring.losses[DIRECT_LOSS])

    def _train(self, model: Path, output: Path, series: str, masks: WeightMasks | None) -> ProbeTraining:
        on_step: Callable[[int, float], None] = partial(self.measuring.step, series)
        return train_probe(
            model,
            self.sequences,
            self.evaluation.probe_budget,
            output,
            device=self.device,
            seed=self.seed,
            on_step=on_step,
            check=self.measuring.context.check,
            masks=masks,
        )

    def _measured(
        self, form: Form, training: ProbeTraining, adapter: Path, masks: WeightMasks | None, windows: Windows
    ) -> _Side:
        adapted = load_with_adapter(self.inputs.base, adapter, self.device, masks)
        return _Side(training, self.measuring.measure(form, adapted, windows))

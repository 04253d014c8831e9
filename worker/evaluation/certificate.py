"""The certificate: train a LoRA on the checkpoint, recover it, and measure it on the base model beside one that was
trained there directly."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel

from publisher.checkpoint.recovery import recover_folder
from publisher.checkpoint.recovery.folder import read_config, write_config
from publisher.checkpoint.recovery.methods import method_of
from publisher.checkpoint.strength import set_strength
from publisher.checkpoint.weight_masks import WeightMasks, open_masks
from publisher.manifest.evaluation import (
    Certificate,
    CertificateBudget,
    GradientFidelity,
    ProbeTraining,
    TriedStrength,
    chosen_strength,
)
from publisher.recipe import Evaluation
from worker.evaluation.direct import DirectAdapter, DirectTraining
from worker.evaluation.fidelity import gradient_fidelity
from worker.evaluation.measuring import Form, Measuring, Windows
from worker.evaluation.paired import paired_difference
from worker.evaluation.perplexity import DocumentLosses
from worker.probe.probe import load_with_adapter, train_probe
from worker.probe.strength import try_strengths
from worker.probe.text import ProbeText
from worker.request import BaseModelSource

#: what training is told as, on the checkpoint and on the base model
PROBE_LOSS, DIRECT_LOSS = "probe_loss", "direct_loss"
#: Batches of the probe's text that gradient fidelity looks at, and the steps that it counts for in the progress.
_FIDELITY_BATCHES = 4
FIDELITY_STEPS = 2 * _FIDELITY_BATCHES


@dataclass(frozen=True)
class _Side:
    """One of the two LoRAs, measured on the base model. `tried`: of the recovered one."""

    training: ProbeTraining
    losses: Mapping[str, DocumentLosses]
    tried: list[TriedStrength] = field(default_factory=list)

    @property
    def perplexity(self) -> dict[str, float]:
        return {corpus: losses.perplexity for corpus, losses in self.losses.items()}


@dataclass(frozen=True)
class ProbedPaths:
    """Folders of the base model and of what quantize made; the masks file. `kept`: what a sweep's variants share."""

    base: Path
    quantized: Path
    masks: Path
    kept: Path | None


@dataclass(frozen=True)
class Prober:
    """`output`: where folder `probe` goes, the recovered adapter that was measured.

    `on_base`: the base model fits for training a LoRA on it, so that what the recipe wants of that can be done.
    """

    base: BaseModelSource
    paths: ProbedPaths
    output: Path
    evaluation: Evaluation
    text: ProbeText
    measuring: Measuring
    device: torch.device
    seed: int
    on_base: bool

    def certify(self, windows: Windows, base: Mapping[str, DocumentLosses]) -> Certificate:
        """`base`: corpus → losses of the base model on `windows`."""
        corpus = self.evaluation.corpora[0]
        recovered = self._recovered(windows)
        direct = self._direct(windows) if self.evaluation.direct and self.on_base else None
        certificate = Certificate(
            corpus=corpus,
            budget=CertificateBudget.model_validate(self.evaluation.probe_budget.model_dump()),
            base=base[corpus].perplexity,
            recovered=recovered.perplexity[corpus],
            tried_strengths=recovered.tried,
            training=recovered.training,
            recovered_perplexity=recovered.perplexity,
            base_perplexity={name: losses.perplexity for name, losses in base.items()},
            differences={name: paired_difference(losses, recovered.losses[name]) for name, losses in base.items()},
            direct=direct and direct.perplexity[corpus],
            direct_perplexity=direct and direct.perplexity,
            direct_training=direct and direct.training,
        )
        self.measuring.context.log(f"Certificate {certificate.verdict.words}: {certificate.reason}.")
        return certificate

    def fidelity(self) -> GradientFidelity | None:
        """None if the recipe does not ask for it or the base model does not fit."""
        if not (self.evaluation.gradient_fidelity and self.on_base):
            return None
        budget, context = self.evaluation.probe_budget, self.measuring.context
        found = gradient_fidelity(
            self.paths.base,
            self.paths.quantized,
            open_masks(self.paths.masks),
            self.text.training[: _FIDELITY_BATCHES * budget.batch_size],
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
        masks = open_masks(self.paths.masks)
        weight_masks = masks.update_masks
        training = self._train(self.paths.quantized, trained, PROBE_LOSS, weight_masks)
        if weight_masks is not None:  # no adapter holds the masked update: the base model masks it again
            shutil.copytree(trained, probe)
        else:
            revision = self.base.revision if self.base.path is None else None
            recover_folder(trained, probe, masks, self.base.public_name, revision)
        shutil.rmtree(trained)
        adapted = load_with_adapter(self.paths.base, probe, self.device, weight_masks)
        tried = self._tried(adapted)
        strength = chosen_strength(tried)
        set_strength(adapted, strength)
        config = read_config(probe)
        write_config(probe, method_of(config).scale(config, strength))
        return _Side(training, self.measuring.measure(Form.RECOVERED, adapted, windows), tried)

    def _tried(self, adapted: PreTrainedModel) -> list[TriedStrength]:
        context, sequences = self.measuring.context, self.text.measured
        if not len(sequences):
            context.log("There is no text left to choose the recovered adapter's strength on: it stays as trained.")
            return []
        tried = try_strengths(adapted, sequences, self.measuring.advance, context.check)
        told = ", ".join(f"{each.loss:.4f} at {each.strength:g}" for each in tried)
        context.log(f"Loss of the base model by the recovered adapter's strength: {told}.")
        return tried

    def _direct(self, windows: Windows) -> _Side:
        """Trained by the first of a sweep's variants; those after it only measure it."""
        kept = self.paths.kept or self.output
        budget = self.evaluation.probe_budget
        adapter = DirectAdapter(kept / "direct", self.base, self.text.training, budget, self.seed, str(self.device))
        found = adapter.find()
        if found is None:
            found = adapter.make(self._train_directly)
        else:
            self.measuring.losses[DIRECT_LOSS] = found.losses
            self.measuring.context.log("The LoRA on the base model was trained for another variant; it is measured.")
            self.measuring.advance(budget.steps)
        adapted = load_with_adapter(self.paths.base, adapter.folder, self.device)
        side = _Side(found.training, self.measuring.measure(Form.DIRECT, adapted, windows))
        if self.paths.kept is None:
            shutil.rmtree(adapter.root)
        return side

    def _train_directly(self, output: Path) -> DirectTraining:
        training = self._train(self.paths.base, output, DIRECT_LOSS, None)
        return DirectTraining(training=training, losses=self.measuring.losses[DIRECT_LOSS])

    def _train(self, model: Path, output: Path, series: str, masks: WeightMasks | None) -> ProbeTraining:
        on_step: Callable[[int, float], None] = partial(self.measuring.step, series)
        return train_probe(
            model,
            self.text.training,
            self.evaluation.probe_budget,
            output,
            device=self.device,
            seed=self.seed,
            on_step=on_step,
            check=self.measuring.context.check,
            masks=masks,
        )

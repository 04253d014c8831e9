"""What the align stage does: model, teacher and training put together, on one device or on several."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from publisher.checkpoint.masks import Masks, load_masks
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.manifest.reports import MatrixErrors, ReconstructionReport
from publisher.plan.choices import gradient_matching_of
from publisher.recipe import Alignment, Objective, Scheme, Stop
from worker.alignment.distributed.crew import run_on_devices
from worker.alignment.distributed.rank import Several
from worker.alignment.distributed.ranks import Alone, Ranks
from worker.alignment.endings import (
    BestHeldOut,
    Candidates,
    Ending,
    LastWeights,
    best_check,
    candidate_file,
)
from worker.alignment.gradient_matching import GradientMatching
from worker.alignment.optimizers import make_optimizer
from worker.alignment.optimizers.state import state_bytes
from worker.alignment.probing import Probing
from worker.alignment.reconstruction import reconstruct
from worker.alignment.rounding import Rounding, nf4_rounding, no_rounding
from worker.alignment.state import Check, TrainingProgress, restore_weights, save_tensors
from worker.alignment.trainable import AllWeights, LowRank, checkpoint_activations, load_trainable
from worker.alignment.training import Training
from worker.context import StageContext
from worker.models.causal import load_causal
from worker.models.head import head_of
from worker.models.measure import compute_dtype, peak_memory
from worker.probe.text import ProbeText
from worker.request import BuildRequest
from worker.stages.align.bf16 import chosen_bf16
from worker.stages.align.text import Text, batch_sequences, read_text
from worker.stages.inputs import AlignInputs
from worker.storage.folder import STATE, write_json
from worker.training.batch_loss import BatchLoss, Distillation, DistillationTerms, NextToken
from worker.training.schedule import Schedule
from worker.training.teacher import BaseModel, KeptBase, KeptTokens, LoadedBase

#: In the state of several devices: what all of them read, and what they leave.
_TEXT, _WEIGHTS = "text.safetensors", "weights.safetensors"
#: in the state: the model that training starts from, and what it said of itself
_RECONSTRUCTED, _ERRORS = "reconstructed", "reconstruction.json"
_TEACHER = "teacher"


@dataclass(frozen=True)
class Trained:
    """`optimizer_bytes`: of its state's tensors."""

    progress: TrainingProgress
    optimizer_bytes: int


@dataclass(frozen=True)
class AlignWork:
    request: BuildRequest
    inputs: AlignInputs
    output: Path
    context: StageContext

    @property
    def alignment(self) -> Alignment:
        return self.request.alignment

    @property
    def device(self) -> torch.device:
        return torch.device(self.request.device)

    @property
    def state(self) -> Path:
        return self.output / STATE

    @property
    def trains_quantized(self) -> bool:
        """Parts of weights that several devices hold do not end where blocks of 64 do: they train without."""
        trains = self.alignment.steps > 0 and len(self.request.devices) < 2
        return trains and self.request.recipe.trains_quantized

    @property
    def gradient_matching(self) -> float:
        """Of several devices each holds a part of every matrix, and of its gradient: they train without."""
        if len(self.request.devices) > 1 or not self._is_structured:
            return 0.0
        return gradient_matching_of(self.request.recipe, self._masks.kinds)

    @cached_property
    def _masks(self) -> Masks:
        """Of structured pruning."""
        return load_masks(self.inputs.masks)

    def text(self) -> Text:
        return read_text(self.request, self.inputs, self.context)

    @property
    def bf16(self) -> list[str]:
        """Names of the linear modules that will not be in 4 bits."""
        return chosen_bf16(self.state)

    def reconstruct(self, text: Text) -> ReconstructionReport | None:
        """Solve for what is left of the layers, unless that is done or not asked for; what there is to say of it."""
        count = min(len(text.training), self.alignment.reconstruction_tokens // self.alignment.sequence_length)
        if not self._is_structured or not count:
            return None
        if not self._reconstructed.exists():
            # the last of the text: layers know it by heart, and training that came from it to new text would take the
            # change for a spike
            self._reconstruct(text.training[-count:])
        return ReconstructionReport.read(self.state / _ERRORS)

    def _reconstruct(self, sequences: Tensor) -> None:
        started, partial = time.perf_counter(), self._reconstructed.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        scratch = self.state / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        self.context.log(f"Layers are reconstructed by {sequences.numel():,} tokens.")
        four_bit = self._four_bit() if self.request.recipe.is_quantization_aware else set()
        with peak_memory(self.device) as peak:
            errors = reconstruct(
                self.inputs.base,
                self.inputs.pruned,
                self._masks,
                sequences,
                partial,
                device=self.device,
                dtype=compute_dtype(self.device),
                scratch=scratch,
                report=lambda done, total: self.context.progress(done, total, "layers"),
                four_bit=four_bit,
            )
        shutil.rmtree(scratch)
        report = ReconstructionReport(
            tokens=sequences.numel(),
            seconds=time.perf_counter() - started,
            peak_memory_bytes=peak.bytes,
            quantization_aware=bool(four_bit),
            matrices=[MatrixErrors.model_validate(error._asdict()) for error in errors],
        )
        write_json(self.state / _ERRORS, report.model_dump(mode="json"))
        partial.rename(self._reconstructed)

    @property
    def _reconstructed(self) -> Path:
        return self.state / _RECONSTRUCTED

    @property
    def _is_structured(self) -> bool:
        return self.request.recipe.pruning.method.removes_units

    def train(self, text: Text, save_seconds: float) -> Trained:
        """Writes the model, unless a probe is still to choose its weights."""
        if not self.alignment.steps:
            _write(self._trainable(torch.device("cpu")), self.output / "model")
            return Trained(TrainingProgress(), 0)
        if len(self.request.devices) > 1:
            return self._train_on_devices(text, save_seconds)
        trainable, trained = self.trained_by(Alone(self.device), text, save_seconds)
        if text.probe is None:
            _write(trainable, self.output / "model")
        return trained

    def trained_by(self, ranks: Ranks, text: Text, save_seconds: float) -> tuple[AllWeights | LowRank, Trained]:
        """What one process does: all of it, or its share."""
        torch.manual_seed(self.request.recipe.seed)
        with peak_memory(ranks.device):
            with ranks.loading() as device:
                trainable = self._trainable(device)
                ranks.place(trainable.model)
            model = trainable.model
            optimizer = make_optimizer(model, self.alignment)
            trainable.trained_by(optimizer)
            batch_loss = self._batch_loss(model, text.training, ranks)
            matching = self._matching(model, batch_loss)
            rounding = self._rounding(model, matching)
            ranks.seed(self.request.recipe.seed)
            progress = Training(
                model,
                optimizer,
                batch_loss,
                text.training,
                schedule=_schedule(self.alignment, len(text.training)),
                context=self.context,
                state_file=self.state / "training.safetensors",
                ending=self._ending(model, batch_loss, text, ranks, rounding),
                ranks=ranks,
                rounding=rounding,
                matching=matching,
                save_seconds=save_seconds,
            ).run()
        return trainable, Trained(progress, state_bytes(optimizer))

    def _matching(self, model: PreTrainedModel, batch_loss: BatchLoss) -> GradientMatching | None:
        if not self.gradient_matching:
            return None
        assert isinstance(batch_loss, Distillation), "the recipe's own validation refuses other objectives"
        assert isinstance(batch_loss.base, LoadedBase), "and the base model's words from a file"
        base = batch_loss.base.model
        if self.alignment.activation_checkpointing:
            checkpoint_activations(base)
        weight, practice = self.gradient_matching, self.alignment.practice_steps
        return GradientMatching(model, base, self._masks, batch_loss.terms, weight=weight, practice=practice)

    def _rounding(self, model: PreTrainedModel, matching: GradientMatching | None) -> Rounding:
        names = self._four_bit() if self.trains_quantized else set()
        moved = set() if matching is None else matching.moved
        return nf4_rounding(model, names, moved) if names or moved else no_rounding()

    def _four_bit(self) -> set[str]:
        """Names of the parameters that the checkpoint will have in 4 bits."""
        from worker.quantization.nf4 import scheme_of
        from worker.quantization.streamed import four_bit_names

        everywhere = self.request.recipe.quantization.include_embeddings
        return four_bit_names(
            self.inputs.pruned, scheme_of(self.inputs.pruned, include_embeddings=everywhere, bf16=self.bf16)
        )

    def _train_on_devices(self, text: Text, save_seconds: float) -> Trained:
        """The processes leave the weights in a file, which becomes a model here, on the CPU: it may not fit a GPU."""
        save_tensors(self.state / _TEXT, text.tensors())
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what earlier stages left is in the way of the process that gets this device
        work = _OnDevice(replace(self.request, publish=None), self.inputs, self.output, save_seconds)
        trained = run_on_devices(work, self.request.devices, self.state, self.context)
        if text.probe is None:
            self._write_candidate(self.state / _WEIGHTS, self.output / "model")
        return trained

    def _trainable(self, device: torch.device) -> AllWeights | LowRank:
        masks = None if self._is_structured else WeightMasks(self.inputs.masks)
        start = self._reconstructed if self._reconstructed.exists() else self.inputs.pruned
        return load_trainable(self.alignment, start, device, masks)

    def _batch_loss(self, model: PreTrainedModel, sequences: Tensor, ranks: Ranks) -> BatchLoss:
        alignment, head = self.alignment, head_of(model).to(compute_dtype(model.device))
        if alignment.objective is Objective.LANGUAGE_MODEL:
            return NextToken(head)
        terms = DistillationTerms(
            temperature=alignment.temperature,
            language_model_share=alignment.language_model_share,
            hidden_states_weight=alignment.hidden_states_weight,
        )
        return Distillation(head, self._teacher(sequences, ranks), terms)

    def _teacher(self, sequences: Tensor, ranks: Ranks) -> BaseModel:
        """Kept likeliest tokens lie where a sweep's other recipes find them, or with the stage's state.

        Who lacks some asks a base model of its own, on each device: the others are not asked at the same time.
        """
        alignment = self.alignment
        if alignment.teacher_top_k is None:
            with ranks.loading() as device:
                base = self._base(device, ranks.device)
                ranks.place(base)
            return LoadedBase(base)
        source = self.request.base
        kept = KeptTokens(sequences, alignment.teacher_top_k, alignment.temperature, (source.repo_id, source.revision))
        file = (self.inputs.kept or self.state) / _TEACHER / kept.digest
        return KeptBase(kept, file, lambda: self._base(ranks.device, ranks.device))

    def _base(self, device: torch.device, computing: torch.device) -> PreTrainedModel:
        return load_causal(self.inputs.base, device, compute_dtype(computing)).requires_grad_(False)

    def _ending(
        self, model: PreTrainedModel, batch_loss: BatchLoss, text: Text, ranks: Ranks, rounding: Rounding
    ) -> Ending:
        steps = _schedule(self.alignment, len(text.training)).steps
        checks = min(self.alignment.checks, steps)
        if self.alignment.stop is Stop.PROBE:
            return Candidates(model, steps=steps, checks=checks, folder=self.state, ranks=ranks)
        if text.held_out is None:
            return LastWeights()
        return BestHeldOut(
            model,
            batch_loss,
            text.held_out,
            steps=steps,
            checks=checks,
            patience=self.alignment.patience,
            file=self.state / "best.safetensors",
            log=self.context.log,
            ranks=ranks,
            rounding=rounding,
        )

    def probe(self, text: ProbeText, trained: Trained) -> Sequence[Check]:
        """Writes the model whose probe helps the base model most."""
        steps = [check.step for check in trained.progress.checks]
        checks = Probing(
            source=self.request.base,
            base=self.inputs.base,
            masks=self.inputs.masks,
            budget=self.request.evaluation.probe_budget,
            text=text,
            write_model=self._write_as_published,
            folder=self.state,
            device=self.device,
            seed=self.request.recipe.seed,
            context=self.context,
        ).losses(steps)
        best = best_check(checks) or checks[-1]
        self.context.log(f"Alignment ends with the weights after step {best.step} of {steps[-1]}.")
        self._write_candidate(candidate_file(self.state, best.step), self.output / "model")
        return checks

    def _write_as_published(self, weights: Path, folder: Path) -> None:
        """In 4 bits, where the checkpoint will be: what a probe can learn depends on it."""
        quantization = self.request.recipe.quantization
        if quantization.scheme is not Scheme.NF4:
            self._write_candidate(weights, folder)
            return
        from worker.quantization.nf4 import quantize_nf4

        with TemporaryDirectory(dir=self.state) as whole:
            self._write_candidate(weights, Path(whole))
            everywhere = quantization.include_embeddings
            quantize_nf4(Path(whole), folder, self.device, include_embeddings=everywhere, bf16=self.bf16)

    def _write_candidate(self, weights: Path, folder: Path) -> None:
        trainable = self._trainable(self.device if len(self.request.devices) < 2 else torch.device("cpu"))
        restore_weights(trainable.model, load_file(weights))
        _write(trainable, folder)


@dataclass(frozen=True)
class _OnDevice:
    """What the process of one of several devices does."""

    request: BuildRequest
    inputs: AlignInputs
    output: Path
    save_seconds: float

    def __call__(self, ranks: Several, context: StageContext) -> Trained:
        work = AlignWork(self.request, self.inputs, self.output, context)
        tensors = load_file(work.state / _TEXT)
        text = Text(tensors["training"], tensors.get("held_out"), None)
        trainable, trained = work.trained_by(ranks, text, self.save_seconds)
        if work.alignment.stop is not Stop.PROBE:
            ranks.save_weights(work.state / _WEIGHTS, trainable.model)
        return trained


def _write(trainable: AllWeights | LowRank, folder: Path) -> None:
    trainable.merged().to(torch.bfloat16).save_pretrained(folder)


def _schedule(alignment: Alignment, sequences: int) -> Schedule:
    batch = batch_sequences(alignment)
    return Schedule(
        steps=sequences // batch,
        batch_sequences=batch,
        peak=alignment.learning_rate,
        warmup_fraction=alignment.warmup_fraction,
    )

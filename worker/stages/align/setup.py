"""What alignment is set up with: the model that trains, its teacher, loss, optimizer's helpers and selection."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from publisher.checkpoint.masks import Masks, load_masks
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.plan.choices import gradient_matching_of
from publisher.recipe import Alignment, Objective, Stop
from worker.alignment.checkpoint_selection import BestHeldOut, Candidates, CheckpointSelection, LastWeights
from worker.alignment.distributed.ranks import Log, Ranks
from worker.alignment.gradient_matching import GradientMatching
from worker.alignment.rounding import Rounding, nf4_rounding, no_rounding
from worker.alignment.trainable import AllWeights, LowRank, checkpoint_activations, load_trainable
from worker.models.causal import load_causal
from worker.models.head import head_of
from worker.models.measure import compute_dtype
from worker.request import BuildRequest
from worker.stages.align.bf16 import chosen_bf16
from worker.stages.align.text import Text, batch_sequences
from worker.stages.inputs import AlignInputs
from worker.training.batch_loss import BatchLoss, Distillation, DistillationTerms, NextToken
from worker.training.schedule import Schedule
from worker.training.teacher import BaseModel, KeptBase, KeptTokens, LoadedBase

#: in the state: the model that training starts from, where layers were reconstructed
_RECONSTRUCTED = "reconstructed"
_TEACHER = "teacher"


@dataclass(frozen=True)
class AlignSetup:
    """By the recipe of `request`. `state` is the folder that attempts at the stage leave to those after them."""

    request: BuildRequest
    inputs: AlignInputs
    state: Path

    @property
    def alignment(self) -> Alignment:
        return self.request.alignment

    @property
    def device(self) -> torch.device:
        return torch.device(self.request.device)

    @property
    def trains_quantized(self) -> bool:
        """Parts of weights that several devices hold do not end where blocks of 64 do: they train without."""
        trains = self.alignment.steps > 0 and len(self.request.devices) < 2
        return trains and self.request.recipe.trains_quantized

    @property
    def gradient_matching(self) -> float:
        """Of several devices each holds a part of every matrix, and of its gradient: they train without."""
        if len(self.request.devices) > 1 or not self.is_structured:
            return 0.0
        return gradient_matching_of(self.request.recipe, self.masks.kinds)

    @cached_property
    def masks(self) -> Masks:
        """Of structured pruning."""
        return load_masks(self.inputs.masks)

    @property
    def bf16(self) -> list[str]:
        """Names of the linear modules that will not be in 4 bits."""
        return chosen_bf16(self.state)

    @property
    def reconstructed(self) -> Path:
        return self.state / _RECONSTRUCTED

    @property
    def is_structured(self) -> bool:
        return self.request.recipe.pruning.method.removes_units

    def schedule(self, text: Text) -> Schedule:
        batch = batch_sequences(self.alignment)
        return Schedule(
            steps=len(text.training) // batch,
            batch_sequences=batch,
            peak=self.alignment.learning_rate,
            warmup_fraction=self.alignment.warmup_fraction,
        )

    def trainable(self, device: torch.device) -> AllWeights | LowRank:
        masks = None if self.is_structured else WeightMasks(self.inputs.masks)
        start = self.reconstructed if self.reconstructed.exists() else self.inputs.pruned
        return load_trainable(self.alignment, start, device, masks)

    def batch_loss(self, model: PreTrainedModel, sequences: Tensor, ranks: Ranks) -> BatchLoss:
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

    def matching(self, model: PreTrainedModel, batch_loss: BatchLoss) -> GradientMatching | None:
        if not self.gradient_matching:
            return None
        assert isinstance(batch_loss, Distillation), "the recipe's own validation refuses other objectives"
        assert isinstance(batch_loss.base, LoadedBase), "and the base model's words from a file"
        base = batch_loss.base.model
        if self.alignment.activation_checkpointing:
            checkpoint_activations(base)
        weight, practice = self.gradient_matching, self.alignment.practice_steps
        return GradientMatching(model, base, self.masks, batch_loss.terms, weight=weight, practice=practice)

    def rounding(self, model: PreTrainedModel, matching: GradientMatching | None) -> Rounding:
        names = self.four_bit() if self.trains_quantized else set()
        moved = set() if matching is None else matching.moved
        return nf4_rounding(model, names, moved) if names or moved else no_rounding()

    def four_bit(self) -> set[str]:
        """Names of the parameters that the checkpoint will have in 4 bits."""
        from worker.quantization.nf4 import scheme_of
        from worker.quantization.streamed import four_bit_names

        everywhere = self.request.recipe.quantization.include_embeddings
        return four_bit_names(
            self.inputs.pruned, scheme_of(self.inputs.pruned, include_embeddings=everywhere, bf16=self.bf16)
        )

    def selection(
        self, model: PreTrainedModel, batch_loss: BatchLoss, text: Text, *, ranks: Ranks, rounding: Rounding, log: Log
    ) -> CheckpointSelection:
        steps = self.schedule(text).steps
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
            log=log,
            ranks=ranks,
            rounding=rounding,
        )

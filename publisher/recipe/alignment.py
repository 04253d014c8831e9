"""The recipe's part on alignment. Field names are a public contract."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from publisher.recipe.optimizers.register import optimizers
from publisher.recipe.optimizers.spec import Optimizer
from publisher.recipe.parts import RecipePart, WeightedCorpora


class Objective(StrEnum):
    """What alignment minimises: KL to the base model's logits, or next-token cross-entropy (the paper's)."""

    DISTILLATION = "distillation"
    LANGUAGE_MODEL = "language_model"


class Trainable(StrEnum):
    """`all` weights but the LM head, as in the paper; or LoRA beside them, merged when alignment ends."""

    ALL = "all"
    LOW_RANK = "low_rank"


class Exhausted(StrEnum):
    """What happens when a corpus holds less text than its share of the tokens."""

    REFUSE = "refuse"
    REPEAT = "repeat"
    STOP = "stop"


class Stop(StrEnum):
    """Which weights alignment ends with: the last; the best on held-out text; those whose probe helps most."""

    END = "end"
    HELD_OUT = "held_out"
    PROBE = "probe"


class Alignment(RecipePart):
    corpora: WeightedCorpora = Field(min_length=1, description="text, mixed by weight; held-out documents stay out")
    tokens: int = Field(
        default=200_000, ge=0, description="tokens trained on in total; 0: layers are only reconstructed"
    )
    sequence_length: int = Field(default=512, ge=8, le=131_072, description="tokens per packed sequence")
    batch_tokens: int = Field(default=4096, ge=8, description="tokens per optimizer step")
    reconstruction_tokens: int = Field(
        default=131_072,
        ge=0,
        description="structured pruning: before training, layers' matrices are solved anew by least squares on so much "
        "text (the last of `tokens`; with tokens 0 all of it), so that layers put out what the base model's do; 0: not",
    )
    learning_rate: float = Field(default=1e-4, gt=0, le=1, description="peak, after warm-up")
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1, description="share of the steps; cosine after it")
    optimizer: Optimizer = Field(
        default=Optimizer.ADAMW, description="; ".join(f"{spec.name}: {spec.words}" for spec in optimizers())
    )
    objective: Objective = Objective.DISTILLATION
    temperature: float = Field(default=1.0, gt=0, le=100, description="distillation: both models' logits divided by it")
    language_model_share: float = Field(
        default=0.0, ge=0, le=1, description="distillation: share of next-token cross-entropy in the loss"
    )
    hidden_states_weight: float = Field(
        default=0.0, ge=0, le=1000, description="distillation: weight of the distance of eight layers' hidden states"
    )
    gradient_matching: float | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="distillation, structured pruning: weight of 1 - cosine between the model's gradients by its "
        "weights and the base model's, mean over matrices; null: 1 where all weights train on one device, without "
        "teacher_top_k, of a model without experts",
    )
    practice_steps: int = Field(
        default=6,
        ge=0,
        le=1000,
        description="with gradient_matching: both models wear an adapter that is trained meanwhile, a new one every so "
        "many steps, so that gradients are matched on an adapter's way and not at its start alone; 0: without",
    )
    teacher_top_k: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="distillation: only the base model's k likeliest tokens and the rest as one, kept on disk and "
        "shared by all recipes with the same text; null: the whole vocabulary, computed anew",
    )
    trainable: Trainable = Trainable.ALL
    rank: int = Field(
        default=64, ge=1, le=4096, description="of LoRA with trainable low_rank, of gradients with such an optimizer"
    )
    quantization_aware: bool | None = Field(
        default=None,
        description="reconstruction and the loss see weights as they will be in 4 bits, and reconstruction rounds by "
        "GPTQ; null: with scheme nf4, the loss where all weights train on one device",
    )
    activation_checkpointing: bool = Field(
        default=False, description="compute layers again in backward: a third more work, much less memory for long text"
    )
    compile: bool = Field(
        default=False, description="torch.compile layers: a minute's wait for faster steps; a CPU needs a C++ compiler"
    )
    exhausted: Exhausted = Exhausted.REFUSE
    stop: Stop = Stop.END
    checks: int = Field(
        default=4, ge=1, le=100, description="stop held_out or probe: how often the weights are looked at"
    )
    patience: int = Field(default=2, ge=1, le=100, description="stop held_out: checks without a better one to end at")

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.batch_tokens % self.sequence_length:
            raise ValueError(
                f"batch_tokens {self.batch_tokens} is not a multiple of sequence_length "
                f"{self.sequence_length}; sequences are packed whole"
            )
        if 0 < self.tokens < self.batch_tokens:
            raise ValueError(f"tokens {self.tokens} is less than one batch of batch_tokens {self.batch_tokens}")
        return self

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if self.tokens:
            return self
        if self.reconstruction_tokens < self.sequence_length:
            raise ValueError(
                f"tokens 0 trains nothing, and reconstruction_tokens {self.reconstruction_tokens} is not one sequence "
                f"of {self.sequence_length} tokens to reconstruct by; raise one of them, or leave alignment out"
            )
        if self.stop is not Stop.END:
            raise ValueError(f"tokens 0 trains nothing that stop {self.stop} could choose from; leave stop out")
        return self

    @model_validator(mode="after")
    def _distillation_alone(self) -> Self:
        """Settings of distillation would be without effect."""
        if self.objective is Objective.DISTILLATION:
            return self
        only = ("temperature", "language_model_share", "hidden_states_weight", "practice_steps", "teacher_top_k")
        for name in only:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for objective distillation; leave it out with {self.objective}")
        return self

    @model_validator(mode="after")
    def _all_rounded(self) -> Self:
        if self.quantization_aware and self.trainable is not Trainable.ALL:
            raise ValueError(
                f"quantization_aware true trains the weights that are quantized; with trainable {self.trainable} they "
                "are frozen: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _gradients_of_both(self) -> Self:
        if not self.gradient_matching:
            return self
        if self.objective is not Objective.DISTILLATION:
            raise ValueError(f"gradient_matching is for objective distillation; leave it out with {self.objective}")
        if self.trainable is not Trainable.ALL:
            raise ValueError(
                f"gradient_matching moves the weights that train; with trainable {self.trainable} they are frozen: "
                "leave one of them out"
            )
        if self.teacher_top_k:
            raise ValueError(
                "teacher_top_k is for a base model that is not asked again, gradient_matching asks it for its "
                "gradients at every step; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _kept_or_compared(self) -> Self:
        if self.teacher_top_k and self.hidden_states_weight:
            raise ValueError(
                "teacher_top_k keeps the base model's likeliest tokens alone, hidden_states_weight needs its hidden "
                "states; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _looked_at(self) -> Self:
        if self.stop is not Stop.END and self.checks > self.steps:
            raise ValueError(f"checks {self.checks} is more than the {self.steps} steps that there are")
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps: whole batches that fit into `tokens`."""
        return self.tokens // self.batch_tokens

    @property
    def text_tokens(self) -> int:
        """Tokens of text that alignment reads: whole batches, or what layers are reconstructed by."""
        return (
            self.steps * self.batch_tokens or self.reconstruction_tokens // self.sequence_length * self.sequence_length
        )

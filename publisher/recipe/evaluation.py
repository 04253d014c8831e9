"""The recipe's fifth part: what is measured, and what has to be shown before anything is published."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from publisher.manifest.verdict import Requirement
from publisher.recipe.parts import CorpusName, RecipePart

#: What the certificate multiplies its recovered probe by, to see what helps most: as trained, up to half as much again
#: (on SmolLM2-135M the best was between, and the loss is flat there).
STRENGTHS = (1.0, 1.15, 1.3, 1.5)
#: of training text, by which that is seen, at most
STRENGTH_TOKENS = 8192


class ProbeBudget(RecipePart):
    """The fixed LoRA training of the certificate."""

    steps: int = Field(default=40, ge=1, le=10_000, description="optimizer steps")
    batch_size: int = Field(default=4, ge=1, le=1024, description="sequences per step")
    sequence_length: int = Field(default=256, ge=8, le=131_072, description="tokens per sequence")
    rank: int = Field(default=8, ge=1, le=1024, description="of the LoRA")
    learning_rate: float = Field(default=1e-3, gt=0, le=1, description="peak")


class Evaluation(RecipePart):
    """Perplexity on the held-out documents of `corpora`; the probe trains on the first one's other documents."""

    corpora: list[CorpusName] = Field(min_length=1, description="measured on their held-out documents")
    probe: bool = Field(default=True, description="train a LoRA, recover it and measure it: the certificate")
    tokens: int = Field(default=16_384, ge=8, description="held-out tokens per corpus, at most")
    sequence_length: int = Field(default=256, ge=8, le=131_072, description="tokens per window")
    stride: int | None = Field(
        default=None, ge=1, description="tokens between the starts of windows; null: sequence_length, no overlap"
    )
    probe_budget: ProbeBudget = Field(default_factory=ProbeBudget)
    direct: bool = Field(
        default=True, description="train the probe's LoRA on the base model as well, where it fits: the upper bound"
    )
    gradient_fidelity: bool = Field(
        default=True, description="with the probe: how like the base model's the checkpoint's LoRA gradients are"
    )
    require_certificate: Requirement = Field(
        default=True,
        description="true: publish only if the certificate passes, that is, over at least eight held-out documents the "
        "probe lowers the base model's loss by more than two standard errors (and 0.001 nats per token). "
        '"unless_failed": also if that is inconclusive, not significant or negligible. false: whatever it says',
    )
    tasks: list[str] = Field(default_factory=list, description="lm-evaluation-harness tasks by name (extra lm-eval)")
    task_limit: int | None = Field(default=None, ge=1, description="documents per task; null: all")

    @model_validator(mode="after")
    def _stride_within(self) -> Self:
        if self.stride is not None and self.stride > self.sequence_length:
            raise ValueError(
                f"stride {self.stride} is more than sequence_length {self.sequence_length}: text would be left out"
            )
        return self

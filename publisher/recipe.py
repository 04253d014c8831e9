"""The recipe: the data that fully says how a variant is made. Field names are a public contract."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from publisher.architecture.structure import LayerKind, Unit
from publisher.recipe_alignment import (
    Alignment,
    Exhausted,
    Objective,
    Optimizer,
    Stop,
    Trainable,
)
from publisher.recipe_parts import CorpusName, RecipePart, WeightedCorpus
from publisher.recipe_pruning import (
    Calibration,
    Criterion,
    Layout,
    Pattern,
    Pruning,
    PruningMethod,
    Scope,
    Storage,
)
from publisher.verdict import Requirement

__all__ = [
    "CHOOSING_TOKENS",
    "Alignment",
    "Calibration",
    "CorpusName",
    "Criterion",
    "Evaluation",
    "Exhausted",
    "Layout",
    "Objective",
    "Optimizer",
    "Pattern",
    "ProbeBudget",
    "Pruning",
    "PruningMethod",
    "Quantization",
    "Recipe",
    "Scheme",
    "Scope",
    "Stop",
    "Storage",
    "Trainable",
    "WeightedCorpus",
]


#: of alignment's text, what tells which matrices stay in bf16
CHOOSING_TOKENS = 8192
#: What the certificate multiplies its recovered probe by, to see what helps most: as trained, up to half as much again
#: (on SmolLM2-135M the best was between, and the loss is flat there).
STRENGTHS = (1.0, 1.15, 1.3, 1.5)
#: of training text, by which that is seen, at most
STRENGTH_TOKENS = 8192


class Scheme(StrEnum):
    NONE = "none"
    NF4 = "nf4"


class Quantization(RecipePart):
    scheme: Scheme = Scheme.NF4
    include_embeddings: bool = Field(default=False, description="nf4: embeddings and LM head in 4 bits as well")
    bf16_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="nf4: share of the linear layers' weights that stays in bf16, at most: whole matrices, those whose "
        "rounding changes the base model's hidden states most, by alignment's text",
    )

    @model_validator(mode="after")
    def _four_bits(self) -> Self:
        for name in ("include_embeddings", "bf16_share"):
            if getattr(self, name) and self.scheme is not Scheme.NF4:
                raise ValueError(f"{name} is for scheme nf4; leave it out with {self.scheme}")
        return self


class ProbeBudget(RecipePart):
    """The fixed LoRA training of the certificate."""

    steps: int = Field(default=40, ge=1, le=10_000)
    batch_size: int = Field(default=4, ge=1, le=1024, description="sequences per step")
    sequence_length: int = Field(default=256, ge=8, le=131_072, description="tokens per sequence")
    rank: int = Field(default=8, ge=1, le=1024)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)


class Evaluation(RecipePart):
    """Perplexity on the held-out documents of `corpora`; the probe trains on the first one's other documents."""

    corpora: list[CorpusName] = Field(min_length=1)
    probe: bool = True
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


class Recipe(RecipePart):
    pruning: Pruning
    alignment: Alignment | None = None
    quantization: Quantization = Field(default_factory=Quantization)
    evaluation: Evaluation | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _compressed_alone(self) -> Self:
        if self.pruning.storage is Storage.COMPRESSED and self.quantization.scheme is not Scheme.NONE:
            raise ValueError(
                f"pruning.storage compressed keeps kept weights as they are; with quantization.scheme "
                f'{self.quantization.scheme} they would lose it: set "quantization": {{"scheme": "none"}}, '
                'or "storage": "dense"'
            )
        return self

    @model_validator(mode="after")
    def _columns_to_reconstruct(self) -> Self:
        """By default what cannot be reconstructed is not."""
        if self.alignment is None or self.pruning.method is PruningMethod.STRUCTURED:
            return self
        if not self.alignment.tokens:
            raise ValueError(
                f"alignment.tokens 0 only reconstructs, which goes with method structured, not {self.pruning.method}"
            )
        tokens = self.alignment.reconstruction_tokens
        if tokens not in {0, Alignment.model_fields["reconstruction_tokens"].default}:
            raise ValueError(
                f"alignment.reconstruction_tokens {tokens} does not go with method {self.pruning.method}, but with "
                "structured; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _units_to_match(self) -> Self:
        if self.alignment and self.alignment.gradient_matching and self.pruning.method is not PruningMethod.STRUCTURED:
            raise ValueError(
                f"alignment.gradient_matching is for method structured, not {self.pruning.method}; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _quantized_after_alignment(self) -> Self:
        if self.alignment and self.alignment.quantization_aware and self.quantization.scheme is not Scheme.NF4:
            raise ValueError(
                f"alignment.quantization_aware true is for quantization.scheme nf4; leave it out with "
                f"{self.quantization.scheme}"
            )
        return self

    @model_validator(mode="after")
    def _text_to_choose_by(self) -> Self:
        if self.quantization.bf16_share and self.alignment is None:
            raise ValueError(
                "quantization.bf16_share: alignment's text tells which matrices stay in bf16, and there is none; name "
                "alignment.corpora, or leave bf16_share out"
            )
        return self

    @model_validator(mode="after")
    def _probe_text(self) -> Self:
        if self.alignment and self.alignment.stop is Stop.PROBE and not (self.evaluation and self.evaluation.probe):
            raise ValueError("alignment.stop probe trains the probe of evaluation: name evaluation.corpora, probe true")
        return self

    @property
    def is_quantization_aware(self) -> bool:
        """Whether alignment looks at weights in 4 bits: reconstruction does, and training if `trains_quantized`."""
        if self.alignment is None or self.quantization.scheme is not Scheme.NF4:
            return False
        return self.alignment.quantization_aware is not False

    @property
    def trains_quantized(self) -> bool:
        """Whether training's loss is that of weights in 4 bits, if one device trains them."""
        alignment = self.alignment
        return self.is_quantization_aware and alignment is not None and alignment.trainable is Trainable.ALL

    def gradient_matching_of(self, kinds: Iterable[LayerKind]) -> float:
        """The weight that one device matches gradients with, of a base model of such layers; 0: it does not.

        Not by default where a router chooses experts: the difference quotient that it takes jumps with its choice.
        """
        alignment = self.alignment
        if alignment is None or not alignment.steps:
            return 0.0
        if alignment.gradient_matching is not None:
            return alignment.gradient_matching
        return float(
            self.pruning.method is PruningMethod.STRUCTURED
            and alignment.objective is Objective.DISTILLATION
            and alignment.trainable is Trainable.ALL
            and alignment.teacher_top_k is None
            and not any(Unit.EXPERTS in kind.units for kind in kinds)
        )

    def canonical_json(self) -> str:
        """One text per meaning: defaults written out, keys sorted, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON, in hex: the recipe digest."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def corpus_names(self) -> list[str]:
        """Every corpus the recipe reads, each once, in order of first use."""
        names = list(self.pruning.calibration.shares) if self.pruning.calibration else []
        names += [corpus.name for corpus in self.alignment.corpora] if self.alignment else []
        names += self.evaluation.corpora if self.evaluation else []
        return list(dict.fromkeys(names))

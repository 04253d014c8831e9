"""The recipe: the data that fully says how a variant is made. Field names are a public contract."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from publisher.recipe_pruning import (
    Calibration,
    CorpusName,
    Criterion,
    Layout,
    Pattern,
    Pruning,
    PruningMethod,
    RecipePart,
    Scope,
    Storage,
)

__all__ = [
    "Alignment",
    "Calibration",
    "CorpusName",
    "Criterion",
    "Evaluation",
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
    "Storage",
    "WeightedCorpus",
]


class Objective(StrEnum):
    """What alignment minimises: KL to the base model's logits, or next-token cross-entropy (the paper's)."""

    DISTILLATION = "distillation"
    LANGUAGE_MODEL = "language_model"


class Optimizer(StrEnum):
    ADAMW = "adamw"


class Scheme(StrEnum):
    NONE = "none"
    NF4 = "nf4"


class WeightedCorpus(RecipePart):
    name: CorpusName
    weight: float = Field(default=1.0, gt=0, description="share of the tokens, relative to the other corpora")


class Alignment(RecipePart):
    corpora: list[WeightedCorpus] = Field(min_length=1)
    tokens: int = Field(default=200_000, ge=1, description="tokens trained on in total")
    sequence_length: int = Field(default=512, ge=8, le=131_072, description="tokens per packed sequence")
    batch_tokens: int = Field(default=4096, ge=8, description="tokens per optimizer step")
    learning_rate: float = Field(default=1e-4, gt=0, le=1, description="peak, after warm-up")
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1, description="share of the steps; cosine after it")
    optimizer: Optimizer = Optimizer.ADAMW
    objective: Objective = Objective.DISTILLATION

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.batch_tokens % self.sequence_length:
            raise ValueError(
                f"batch_tokens {self.batch_tokens} is not a multiple of sequence_length "
                f"{self.sequence_length}; sequences are packed whole"
            )
        if self.tokens < self.batch_tokens:
            raise ValueError(f"tokens {self.tokens} is less than one batch of batch_tokens {self.batch_tokens}")
        names = [corpus.name for corpus in self.corpora]
        if len(set(names)) != len(names):
            raise ValueError(f"corpora names one corpus twice: {', '.join(names)}; give it one weight")
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps: whole batches that fit into `tokens`."""
        return self.tokens // self.batch_tokens


class Quantization(RecipePart):
    scheme: Scheme = Scheme.NF4


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
    probe_budget: ProbeBudget = Field(default_factory=ProbeBudget)


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

    def canonical_json(self) -> str:
        """One text per meaning: defaults written out, keys sorted, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON, in hex: the recipe digest."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def corpus_names(self) -> list[str]:
        """Every corpus the recipe reads, each once, in order of first use."""
        names = [self.pruning.calibration.corpus] if self.pruning.calibration else []
        names += [corpus.name for corpus in self.alignment.corpora] if self.alignment else []
        names += self.evaluation.corpora if self.evaluation else []
        return list(dict.fromkeys(names))

"""The recipe: the data that fully says how a variant is made. Field names are a public contract."""

from __future__ import annotations

import hashlib
import json
from typing import Self

from pydantic import Field, model_validator

from publisher.recipe.alignment import Alignment, Stop, Trainable
from publisher.recipe.evaluation import Evaluation
from publisher.recipe.parts import RecipePart
from publisher.recipe.pruning import Pruning, Storage
from publisher.recipe.quantization import Quantization, Scheme


class Recipe(RecipePart):
    pruning: Pruning = Field(description="what goes, and how it is chosen")
    alignment: Alignment | None = Field(
        default=None, description="how what is left is brought back to what the base model does; null: not"
    )
    quantization: Quantization = Field(default_factory=Quantization, description="how weights are stored")
    evaluation: Evaluation | None = Field(
        default=None, description="what is measured, and what has to be shown before it is published; null: nothing"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="of everything that is drawn by chance")

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
        if self.alignment is None or self.pruning.method.removes_units:
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
        if self.alignment and self.alignment.gradient_matching and not self.pruning.method.removes_units:
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

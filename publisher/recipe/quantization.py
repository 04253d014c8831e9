"""The recipe's fourth part: how weights are stored."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from publisher.recipe.parts import RecipePart

#: of alignment's text, what tells which matrices stay in bf16
CHOOSING_TOKENS = 8192


class Scheme(StrEnum):
    NONE = "none"
    NF4 = "nf4"


class Quantization(RecipePart):
    scheme: Scheme = Field(default=Scheme.NF4, description="nf4: linear layers in 4 bits with double quantization")
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

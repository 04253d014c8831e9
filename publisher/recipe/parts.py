"""What the parts of a recipe have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

CorpusName = Annotated[str, Field(min_length=1, max_length=96, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class RecipePart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WeightedCorpus(RecipePart):
    name: CorpusName = Field(description="as it was registered, or as `--corpus` names it")
    weight: float = Field(default=1.0, gt=0, le=1e6, description="share of the text, relative to the other corpora")

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, given: Any) -> Any:
        """`"docs"` for `{"name": "docs"}`, as evaluation names its corpora."""
        return {"name": given} if isinstance(given, str) else given


def _each_once(corpora: list[WeightedCorpus]) -> list[WeightedCorpus]:
    names = [corpus.name for corpus in corpora]
    if len(set(names)) != len(names):
        raise ValueError(f"names one corpus twice: {', '.join(names)}; give it one weight")
    return corpora


WeightedCorpora = Annotated[list[WeightedCorpus], AfterValidator(_each_once)]


def shares_of(corpora: Sequence[WeightedCorpus], count: int) -> dict[str, int]:
    """How much of `count` falls to each corpus by its weight, in their order; adds up to `count`."""
    shares = split_by_weight(count, [corpus.weight for corpus in corpora])
    return {corpus.name: share for corpus, share in zip(corpora, shares, strict=True)}


def split_by_weight(count: int, weights: Sequence[float]) -> list[int]:
    """Whole shares of `count` in proportion to `weights`; largest remainders first, so that they add up."""
    exact = [count * weight / math.fsum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda index: shares[index] - exact[index])
    for index in by_remainder[: count - sum(shares)]:
        shares[index] += 1
    return shares

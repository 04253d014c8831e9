"""Which families of decoders can be pruned, and why not: what the oracle found (`publisher families --check`).

families.json is generated: worker/families prunes a tiny model of every family and compares it with its base.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

DATA_FILE = "families.json"


class Family(BaseModel):
    """One of transformers' model types that has a causal language model."""

    model_config = ConfigDict(frozen=True)

    family: str = Field(description="model_type in config.json")
    model_class: str = Field(description="the class that config.json names under architectures")
    supported: bool = Field(description="whether models of it can be pruned")
    units: list[str] = Field(description="what structured pruning removes: kv_heads, neurons, experts")
    whole: dict[str, str] = Field(default_factory=dict, description="units that always stay, and why")
    largest_difference: float | None = Field(
        default=None,
        description="between the logits of the pruned model and of the base model with the same units switched off, in "
        "float64; null if it never came to that",
    )
    reason: str | None = Field(default=None, description="why the family is not supported")


class Families(BaseModel):
    """What the oracle found of every family, by name."""

    model_config = ConfigDict(frozen=True)

    transformers: str = Field(description="version of transformers that was asked")
    families: list[Family] = Field(description="every one of them, by name")


@cache
def known_families() -> Families:
    """The data file of this package."""
    return Families.model_validate_json(files("publisher").joinpath(DATA_FILE).read_bytes())


def refusal(model_type: str) -> str | None:
    """Why models of this type cannot be pruned, as the rest of a sentence; None if they can."""
    found = next((family for family in known_families().families if family.family == model_type), None)
    if found is None:
        return f"transformers {known_families().transformers} has no causal language model of that family"
    return None if found.supported else found.reason


def write_families(families: Families, path: Path) -> None:
    """The same families give the same bytes."""
    ordered = families.model_copy(update={"families": sorted(families.families, key=lambda each: each.family)})
    path.write_text(ordered.model_dump_json(indent=1) + "\n", encoding="utf-8")

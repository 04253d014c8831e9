"""What a plan is asked for."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from publisher.recipe import Recipe

RECIPE_EXAMPLE: dict[str, Any] = {
    "pruning": {
        "criterion": "taylor",
        "ratio": 0.65,
        "protect_first": 4,
        "protect_last": 2,
        "calibration": {"corpus": "fineweb-sample", "samples": 32, "sequence_length": 256},
    },
    "alignment": {"corpora": [{"name": "fineweb-sample", "weight": 1.0}], "tokens": 200_000},
    "quantization": {"scheme": "nf4"},
    "evaluation": {"corpora": ["fineweb-sample"], "probe": True},
    "seed": 0,
}


class PlanRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"base_model_id": "base_…", "recipe": RECIPE_EXAMPLE}]}
    )

    base_model_id: str = Field(min_length=1, max_length=64, description="a registered base model")
    recipe: Recipe = Field(description="what is planned")

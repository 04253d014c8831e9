"""What a variant has become, by its manifest, or will become, by its plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from publisher.api.base_models_schema import facts_of
from publisher.architecture import pruned_widths
from publisher.architecture.sparsity import parameters_of
from publisher.plan import stored_weight_bytes
from publisher.plan.sizes import checkpoint_bytes
from publisher.recipe import Recipe
from publisher.store.models import Variant


@dataclass(frozen=True)
class VariantNumbers:
    """Parameters and bytes of weight files. `perplexity` maps a corpus to the model's forms and their perplexity.

    `certificate` is publisher.checkpoint.evaluation.Certificate as JSON: that package needs torch, a page does not.
    """

    planned: bool
    base_parameters: int
    parameters: int
    base_bytes: int
    bytes: int
    perplexity: Mapping[str, Mapping[str, float | None]]
    certificate: Mapping[str, Any] | None

    @property
    def fewer(self) -> float:
        return self.base_parameters / max(self.parameters, 1)

    @property
    def smaller(self) -> float:
        return self.base_bytes / max(self.bytes, 1)

    @classmethod
    def of(cls, variant: Variant) -> Self:
        """As measured and published, or as planned while that is still to come."""
        return cls._measured(variant.manifest) if variant.manifest else cls._planned(variant)

    @classmethod
    def _measured(cls, manifest: Mapping[str, Any]) -> Self:
        evaluation = manifest.get("evaluation") or {}
        return cls(
            planned=False,
            base_parameters=manifest["parameters"]["base"],
            parameters=manifest["parameters"]["pruned"],
            base_bytes=manifest["bytes"]["base"],
            bytes=manifest["bytes"]["checkpoint"],
            perplexity=evaluation.get("perplexity") or {},
            certificate=evaluation.get("certificate"),
        )

    @classmethod
    def _planned(cls, variant: Variant) -> Self:
        facts = facts_of(variant.base_model)
        recipe = Recipe.model_validate(variant.recipe)
        widths = pruned_widths(facts.geometry, recipe.pruning)
        return cls(
            planned=True,
            base_parameters=facts.parameters,
            parameters=parameters_of(facts.geometry, widths, recipe.pruning),
            base_bytes=facts.bytes,
            bytes=checkpoint_bytes(
                facts.geometry, widths, recipe, stored_weight_bytes(facts.parameters, facts.bytes, recipe)
            ),
            perplexity={},
            certificate=None,
        )

"""What a variant has become, by its manifest, or will become, by its plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from publisher.api.base_models_schema import facts_of
from publisher.architecture.sparsity import parameters_of
from publisher.architecture.widths import pruned_widths
from publisher.manifest.verdict import Verdict, verdict_of
from publisher.plan.plan import stored_weight_bytes
from publisher.plan.sizes import checkpoint_bytes
from publisher.recipe import Recipe
from publisher.store.models import Variant


@dataclass(frozen=True)
class VariantNumbers:
    """Parameters and bytes of weight files. `perplexity` maps a corpus to the model's forms and their perplexity.

    `certificate`, `gradient_fidelity` and `tasks` are those of publisher.manifest.evaluation as JSON: that package
    needs torch, a page does not. Checkpoints of older publishers lack some of their keys.
    """

    planned: bool
    base_parameters: int
    parameters: int
    base_bytes: int
    bytes: int
    perplexity: Mapping[str, Mapping[str, float | None]]
    certificate: Mapping[str, Any] | None
    gradient_fidelity: Mapping[str, Any] | None = None
    tasks: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    @property
    def fewer(self) -> float:
        return self.base_parameters / max(self.parameters, 1)

    @property
    def smaller(self) -> float:
        return self.base_bytes / max(self.bytes, 1)

    @property
    def verdict(self) -> Verdict | None:
        return None if self.certificate is None else verdict_of(self.certificate)

    @property
    def difference(self) -> Mapping[str, Any] | None:
        """Documents, mean and standard error on the certificate's corpus; None of an older publisher's."""
        if self.certificate is None:
            return None
        found: Mapping[str, Any] | None = self._differences.get(self.certificate["corpus"])
        return found

    @property
    def _differences(self) -> Mapping[str, Any]:
        return (self.certificate or {}).get("differences") or {}

    @property
    def certificate_rows(self) -> list[tuple[str, list[float | None], float | None, Mapping[str, Any] | None]]:
        """Corpus, perplexity of the base model alone, with the recovered LoRA, with the direct one; gain retained;
        the recovered one's gain document by document."""
        found = self.certificate
        if found is None:
            return []
        base = found.get("base_perplexity") or {found["corpus"]: found["base"]}
        recovered = found.get("recovered_perplexity") or {found["corpus"]: found["recovered"]}
        direct, retained = found.get("direct_perplexity") or {}, found.get("gain_retained_by_corpus") or {}
        return [
            (
                corpus,
                [value, recovered.get(corpus), direct.get(corpus)],
                retained.get(corpus),
                self._differences.get(corpus),
            )
            for corpus, value in base.items()
        ]

    @property
    def task_rows(self) -> list[tuple[str, str, list[float | None]]]:
        """Task, metric, and its value on the base model, the published one, and the base with the recovered LoRA."""
        rows: list[tuple[str, str, list[float | None]]] = []
        for task, forms in self.tasks.items():
            found = [forms.get(form, {}) for form in ("base", "published", "recovered")]
            metrics = dict.fromkeys(name for values in found for name in values if "_stderr" not in name)
            rows += [(task, metric, [values.get(metric) for values in found]) for metric in metrics]
        return rows

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
            gradient_fidelity=evaluation.get("gradient_fidelity"),
            tasks=evaluation.get("tasks") or {},
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

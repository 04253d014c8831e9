"""What a variant has become, by its manifest, or will become, by its plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from publisher.api.base_models_schema import facts_of
from publisher.architecture.geometry import LayerWidths
from publisher.architecture.sparsity import parameters_of
from publisher.architecture.widths import pruned_widths
from publisher.base_model.facts import BaseModelFacts
from publisher.errors import Conflict
from publisher.manifest.evaluation import (
    Certificate,
    EvaluationReport,
    GradientFidelity,
    PairedDifference,
    Perplexities,
)
from publisher.manifest.manifest import Manifest
from publisher.manifest.verdict import Verdict
from publisher.plan.plan import stored_weight_bytes
from publisher.plan.sizes import checkpoint_bytes, lora_memory, lora_memory_on_base
from publisher.recipe import Recipe
from publisher.store.models import Variant
from publisher.store.variant_content import Unreadable, manifest_of, recipe_of

#: corpus; perplexity of the base model alone, with the recovered LoRA, with the direct one; gain retained; the
#: recovered one's gain document by document
CertificateRow = tuple[str, list[float | None], float | None, PairedDifference | None]


@dataclass(frozen=True)
class VariantNumbers:
    """Parameters and bytes of weight files; bytes to train the plan's reference LoRA, where what is there tells them;
    what was measured, if anything was."""

    planned: bool
    base_parameters: int
    parameters: int
    base_bytes: int
    bytes: int
    memory: int | None = None
    base_memory: int | None = None
    evaluation: EvaluationReport | None = None

    @property
    def fewer(self) -> float:
        return self.base_parameters / max(self.parameters, 1)

    @property
    def smaller(self) -> float:
        return self.base_bytes / max(self.bytes, 1)

    @property
    def perplexity(self) -> Mapping[str, Perplexities]:
        """By corpus."""
        return self.evaluation.perplexity if self.evaluation else {}

    @property
    def certificate(self) -> Certificate | None:
        return self.evaluation.certificate if self.evaluation else None

    @property
    def gradient_fidelity(self) -> GradientFidelity | None:
        return self.evaluation.gradient_fidelity if self.evaluation else None

    @property
    def verdict(self) -> Verdict | None:
        return self.certificate.verdict if self.certificate else None

    @property
    def gain_retained(self) -> float | None:
        return self.certificate.gain_retained if self.certificate else None

    @property
    def certificate_rows(self) -> list[CertificateRow]:
        found = self.certificate
        if found is None:
            return []
        base = found.base_perplexity or {found.corpus: found.base}
        recovered = found.recovered_perplexity or {found.corpus: found.recovered}
        direct, retained = found.direct_perplexity or {}, found.gain_retained_by_corpus or {}
        return [
            (
                corpus,
                [value, recovered.get(corpus), direct.get(corpus)],
                retained.get(corpus),
                found.differences.get(corpus),
            )
            for corpus, value in base.items()
        ]

    @property
    def task_rows(self) -> list[tuple[str, str, list[float | None]]]:
        """Task, metric, and its value on the base model, the published one, and the base with the recovered LoRA."""
        rows: list[tuple[str, str, list[float | None]]] = []
        for task, forms in (self.evaluation.tasks if self.evaluation else {}).items():
            found = [forms.get(form, {}) for form in ("base", "published", "recovered")]
            metrics = dict.fromkeys(name for values in found for name in values if "_stderr" not in name)
            rows += [(task, metric, [values.get(metric) for values in found]) for metric in metrics]
        return rows

    @classmethod
    def of(cls, variant: Variant) -> VariantNumbers | None:
        """As measured and published, or as planned while that is still to come; None where what says so cannot be
        read."""
        manifest = manifest_of(variant)
        recipe = recipe_of(variant)
        if manifest is not None:
            return cls._measured(variant, manifest, recipe) if isinstance(manifest, Manifest) else None
        if not isinstance(recipe, Recipe):
            return None
        return _planned(facts_of(variant.base_model).model_dump_json(), recipe.model_dump_json())

    @classmethod
    def _measured(cls, variant: Variant, manifest: Manifest, recipe: Recipe | Unreadable) -> Self:
        memory = _memory(variant, manifest, recipe) if isinstance(recipe, Recipe) else (None, None)
        return cls(
            planned=False,
            base_parameters=manifest.parameters.base,
            parameters=manifest.parameters.pruned,
            base_bytes=manifest.bytes.base,
            bytes=manifest.bytes.checkpoint,
            memory=memory[0],
            base_memory=memory[1],
            evaluation=manifest.evaluation,
        )


def _memory(variant: Variant, manifest: Manifest, recipe: Recipe) -> tuple[int | None, int | None]:
    """On the checkpoint and on the base model; None where the base model is described as no version does now."""
    try:
        geometry = facts_of(variant.base_model).geometry
    except Conflict:
        return None, None
    if len(manifest.widths) != geometry.layers:
        return None, lora_memory_on_base(geometry)
    widths = [LayerWidths(it.query_heads, it.kv_heads, it.neurons, it.experts) for it in manifest.widths]
    return lora_memory(geometry, widths, recipe), lora_memory_on_base(geometry)


# reckoned by contents: a list of variants asks for the same few again and again, and large models have many layers
@lru_cache(maxsize=1024)
def _planned(facts: str, recipe: str) -> VariantNumbers:
    base, asked = BaseModelFacts.model_validate_json(facts), Recipe.model_validate_json(recipe)
    widths = pruned_widths(base.geometry, asked.pruning)
    stored = stored_weight_bytes(base.parameters, base.bytes, asked)
    return VariantNumbers(
        planned=True,
        base_parameters=base.parameters,
        parameters=parameters_of(base.geometry, widths, asked.pruning),
        base_bytes=base.bytes,
        bytes=checkpoint_bytes(base.geometry, widths, asked, stored),
        memory=lora_memory(base.geometry, widths, asked),
        base_memory=lora_memory_on_base(base.geometry),
    )

"""What a recipe's fields came to: values that it leaves to the base model or the machine, and what was used of others.

One declaration a field; a field that is not here was used as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from publisher.manifest.evaluation import Certificate
from publisher.manifest.manifest import AlignmentRecord, Manifest
from publisher.recipe import Recipe, Stop

AUTOMATIC = "automatic"

#: what null means, where it is not "none"
_NONE: Mapping[str, str] = {
    "alignment.gradient_matching": AUTOMATIC,
    "alignment.quantization_aware": AUTOMATIC,
    "alignment.teacher_top_k": "the whole vocabulary",
    "evaluation.stride": AUTOMATIC,
    "evaluation.task_limit": "all documents",
}


def meaning_of_none(path: str) -> str:
    """In words, of a field that is null."""
    return _NONE.get(path, "none")


def used(path: str, recipe: Recipe, manifest: Manifest | None) -> str | None:
    """`40,960 used`: what the manifest holds of a field's use, where it is not what the recipe says itself."""
    if path in _OF_RECIPE:
        return _OF_RECIPE[path](recipe)
    if manifest is None or path not in _OF_MANIFEST:
        return None
    return _OF_MANIFEST[path](recipe, manifest)


def _stride(recipe: Recipe) -> str | None:
    evaluation = recipe.evaluation
    return f"{evaluation.sequence_length:,} used" if evaluation is not None and evaluation.stride is None else None


_OF_RECIPE: Mapping[str, Callable[[Recipe], str | None]] = {"evaluation.stride": _stride}


def _ratio(recipe: Recipe, manifest: Manifest) -> str | None:
    removed = 1 - manifest.parameters.pruned / max(manifest.parameters.base, 1)
    return f"{100 * removed:.1f} % of all parameters removed"


def _aligned(say: Callable[[Recipe, AlignmentRecord], str | None]) -> Callable[[Recipe, Manifest], str | None]:
    return lambda recipe, manifest: say(recipe, manifest.alignment) if manifest.alignment else None


def _certified(say: Callable[[Recipe, Certificate], str | None]) -> Callable[[Recipe, Manifest], str | None]:
    def found(recipe: Recipe, manifest: Manifest) -> str | None:
        certificate = manifest.evaluation.certificate if manifest.evaluation else None
        return say(recipe, certificate) if certificate else None

    return found


def _tokens(recipe: Recipe, record: AlignmentRecord) -> str | None:
    asked = recipe.alignment.tokens if recipe.alignment else record.tokens
    return f"{record.tokens:,} used" if record.tokens != asked else None


def _reconstruction(recipe: Recipe, record: AlignmentRecord) -> str | None:
    asked = recipe.alignment.reconstruction_tokens if recipe.alignment else 0
    taken = record.reconstruction.tokens if record.reconstruction else 0
    return f"{taken:,} used" if taken != asked else None


def _gradient_matching(recipe: Recipe, record: AlignmentRecord) -> str | None:
    asked = recipe.alignment.gradient_matching if recipe.alignment else None
    return f"{record.gradient_matching:g} used" if record.gradient_matching != asked else None


def _quantization_aware(recipe: Recipe, record: AlignmentRecord) -> str | None:
    asked = recipe.alignment.quantization_aware if recipe.alignment else None
    used = "yes" if record.quantization_aware else "no"
    return f"training: {used}" if record.quantization_aware is not asked else None


def _warm_up(recipe: Recipe, record: AlignmentRecord) -> str | None:
    if recipe.alignment is None or not record.steps:
        return None
    return f"of {record.steps:,} steps"


def _stop(recipe: Recipe, record: AlignmentRecord) -> str | None:
    chosen = recipe.alignment is not None and recipe.alignment.stop is not Stop.END and record.step is not None
    return f"step {record.step:,} of {record.steps:,} taken" if chosen else None


def _bf16(recipe: Recipe, record: AlignmentRecord) -> str | None:
    count = len(record.bf16_modules)
    return f"{count:,} matri{'x' if count == 1 else 'ces'} left in bf16" if recipe.quantization.bf16_share else None


def _held_out(recipe: Recipe, manifest: Manifest) -> str | None:
    counted = manifest.evaluation.held_out_tokens if manifest.evaluation else {}
    asked = recipe.evaluation.tokens if recipe.evaluation else None
    if not counted or set(counted.values()) == {asked}:
        return None
    return ", ".join(f"{tokens:,} of {corpus} scored" for corpus, tokens in counted.items())


def _direct(recipe: Recipe, certificate: Certificate) -> str | None:
    wanted = recipe.evaluation is not None and recipe.evaluation.direct
    return "not measured" if wanted and certificate.direct is None else None


def _fidelity(recipe: Recipe, manifest: Manifest) -> str | None:
    report = manifest.evaluation
    wanted = recipe.evaluation is not None and recipe.evaluation.gradient_fidelity
    lacks = report is not None and report.certificate is not None and report.gradient_fidelity is None
    return "not measured" if wanted and lacks else None


_OF_MANIFEST: Mapping[str, Callable[[Recipe, Manifest], str | None]] = {
    "pruning.ratio": _ratio,
    "alignment.tokens": _aligned(_tokens),
    "alignment.reconstruction_tokens": _aligned(_reconstruction),
    "alignment.gradient_matching": _aligned(_gradient_matching),
    "alignment.quantization_aware": _aligned(_quantization_aware),
    "alignment.warmup_fraction": _aligned(_warm_up),
    "alignment.stop": _aligned(_stop),
    "quantization.bf16_share": _aligned(_bf16),
    "evaluation.tokens": _held_out,
    "evaluation.direct": _certified(_direct),
    "evaluation.gradient_fidelity": _fidelity,
}

"""Versions of the recipe's fields: what came with which, and how a recipe of an older one becomes one of this.

Recipes are stored with defaults written out, so that one which lacks a field was written before there was one. What
it was then is what it has to stay: not today's default, but what was done without the field.

Whoever adds, renames, removes or re-types a field of a recipe adds a version here, with the function that brings a
recipe of the version before to it. Words that were added to an enum need none; one that is removed does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Content = dict[str, Any]

#: of a corpus, since version 10; what is in proportion stays so
_MOST_WEIGHT = 1e6


def _as_it_is(recipe: Content) -> Content:
    """Today's default of each new field is what was done without it."""
    return recipe


def _from_1(recipe: Content) -> Content:
    """Every layer lost the same share."""
    return _with(recipe, "pruning", scope="uniform")


def _from_2(recipe: Content) -> Content:
    """Nothing but the probe was trained, and checkpoints were published whatever it came to."""
    return _with(recipe, "evaluation", direct=False, gradient_fidelity=False, require_certificate=False)


def _from_5(recipe: Content) -> Content:
    return _with(recipe, "alignment", reconstruction_tokens=0)


def _from_6(recipe: Content) -> Content:
    return _with(recipe, "alignment", quantization_aware=False)


def _from_7(recipe: Content) -> Content:
    return _with(recipe, "alignment", gradient_matching=0.0)


def _from_9(recipe: Content) -> Content:
    """Weights had no bound."""
    pruning = _part(recipe, "pruning")
    calibration = _bounded(_part(pruning, "calibration"))
    bounded = _with(recipe, "pruning", **({"calibration": calibration} if calibration else {}))
    return _with(bounded, "alignment", **_bounded(_part(recipe, "alignment")))


def _from_10(recipe: Content) -> Content:
    """Gradients were matched without practice; where nothing is distilled the field is refused unless left as it is."""
    if _part(recipe, "alignment").get("objective") != "distillation":
        return recipe
    return _with(recipe, "alignment", practice_steps=0)


@dataclass(frozen=True)
class RecipeVersion:
    """`fields`: those that it brought, `pruning.ratio`; `upgrade`: a recipe of the version before, as one of it."""

    fields: tuple[str, ...]
    upgrade: Callable[[Content], Content] = _as_it_is


#: by number, without gaps
VERSIONS: Mapping[int, RecipeVersion] = {
    1: RecipeVersion(
        (
            "seed",
            "pruning.method",
            "pruning.criterion",
            "pruning.ratio",
            "pruning.protect_first",
            "pruning.protect_last",
            "pruning.calibration.corpus",
            "pruning.calibration.samples",
            "pruning.calibration.sequence_length",
            "alignment.corpora.name",
            "alignment.corpora.weight",
            "alignment.tokens",
            "alignment.sequence_length",
            "alignment.batch_tokens",
            "alignment.learning_rate",
            "alignment.warmup_fraction",
            "alignment.optimizer",
            "alignment.objective",
            "quantization.scheme",
            "evaluation.corpora",
            "evaluation.probe",
            "evaluation.tokens",
            "evaluation.sequence_length",
            "evaluation.probe_budget.steps",
            "evaluation.probe_budget.batch_size",
            "evaluation.probe_budget.sequence_length",
            "evaluation.probe_budget.rank",
            "evaluation.probe_budget.learning_rate",
        )
    ),
    2: RecipeVersion(
        (
            "pruning.pattern",
            "pruning.scope",
            "pruning.neuron_floor",
            "pruning.round_to",
            "pruning.layout",
            "pruning.storage",
        ),
        _from_1,
    ),
    3: RecipeVersion(
        (
            "alignment.temperature",
            "alignment.language_model_share",
            "alignment.hidden_states_weight",
            "alignment.teacher_top_k",
            "alignment.trainable",
            "alignment.rank",
            "alignment.exhausted",
            "alignment.stop",
            "alignment.checks",
            "alignment.patience",
            "quantization.include_embeddings",
            "evaluation.stride",
            "evaluation.direct",
            "evaluation.gradient_fidelity",
            "evaluation.require_certificate",
            "evaluation.tasks",
            "evaluation.task_limit",
        ),
        _from_2,
    ),
    4: RecipeVersion(("alignment.activation_checkpointing",)),
    5: RecipeVersion(("alignment.compile",)),
    6: RecipeVersion(("alignment.reconstruction_tokens",), _from_5),
    7: RecipeVersion(("alignment.quantization_aware",), _from_6),
    8: RecipeVersion(("alignment.gradient_matching",), _from_7),
    9: RecipeVersion(("pruning.calibration.corpora.name", "pruning.calibration.corpora.weight")),
    10: RecipeVersion(("quantization.bf16_share",), _from_9),
    11: RecipeVersion(("alignment.practice_steps",), _from_10),
}

#: what is written
CURRENT = max(VERSIONS)


def upgraded(recipe: Mapping[str, Any], version: int) -> Content:
    """A recipe of an older version as one of the current."""
    content = dict(recipe)
    for number in range(version + 1, CURRENT + 1):
        content = VERSIONS[number].upgrade(content)
    return content


def version_of(recipe: Mapping[str, Any]) -> int:
    """The version of a recipe that does not state it, as in a manifest: the last none of whose fields it lacks.

    A part that it leaves out, as alignment, lacks none.
    """
    for number in sorted(VERSIONS):
        if any(_lacks(recipe, field.split(".")) for field in VERSIONS[number].fields):
            return max(number - 1, min(VERSIONS))
    return CURRENT


def _lacks(part: object, way: list[str]) -> bool:
    if isinstance(part, list):
        return any(_lacks(each, way) for each in part)
    if not isinstance(part, Mapping) or not way:
        return False
    return way[0] not in part or _lacks(part[way[0]], way[1:])


def _part(recipe: Mapping[str, Any], name: str) -> Content:
    """Empty where it is left out."""
    part = recipe.get(name)
    return dict(part) if isinstance(part, Mapping) else {}


def _with(recipe: Content, name: str, **values: object) -> Content:
    """`recipe` whose part `name`, if it has one, has these values, too."""
    part = _part(recipe, name)
    return recipe | {name: part | values} if part else recipe


def _bounded(part: Content) -> Content:
    """Its corpora with weights in the same proportion, the largest within the bound."""
    corpora = [dict(corpus) for corpus in _corpora(part)]
    weights = [corpus["weight"] for corpus in corpora if isinstance(corpus.get("weight"), int | float)]
    largest = max(weights, default=0)
    if not largest > _MOST_WEIGHT or len(weights) < len(corpora):
        return part
    return part | {"corpora": [corpus | {"weight": corpus["weight"] / largest * _MOST_WEIGHT} for corpus in corpora]}


def _corpora(part: Content) -> Iterator[Mapping[str, Any]]:
    corpora = part.get("corpora")
    yield from (each for each in corpora if isinstance(each, Mapping)) if isinstance(corpora, list) else ()

"""The model card on pruning: what was taken out, where, and what that means for memory."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.errors import listed
from publisher.manifest.manifest import Manifest
from publisher.recipe import Layout, PruningMethod, Recipe, Storage
from publisher.recipe.criteria.register import criterion_spec
from publisher.recipe.stored import stored_recipe

_UNITS = {"kv_heads": "attention heads (whole KV groups)", "neurons": "MLP neurons", "experts": "experts"}


def recipe_of(manifest: Manifest) -> Recipe:
    """Raises RequestFault if it is of another version and cannot be read."""
    return stored_recipe(manifest.recipe)


def method(manifest: Manifest) -> PruningMethod:
    return recipe_of(manifest).pruning.method


def is_of_single_weights(manifest: Manifest) -> bool:
    """Whether weights were pruned one by one, so that shapes are the base model's."""
    return method(manifest) is not PruningMethod.STRUCTURED


def is_compressed(manifest: Manifest) -> bool:
    return recipe_of(manifest).pruning.storage is Storage.COMPRESSED


def loads_anywhere(manifest: Manifest) -> bool:
    """Whether transformers loads the checkpoint without this package."""
    recipe = recipe_of(manifest)
    if recipe.quantization.include_embeddings:
        return False
    if is_of_single_weights(manifest):
        return not is_compressed(manifest)
    return recipe.pruning.layout is Layout.UNIFORM


def calibration_corpora(manifest: Manifest) -> set[str]:
    """Whose text importance was measured on."""
    pruning = recipe_of(manifest).pruning
    reads_text = criterion_spec(pruning.criterion).reads_text
    return set(pruning.calibration.shares) if pruning.calibration and reads_text else set()


def pruning(manifest: Manifest) -> str:
    """What was removed, by which measure, and what it saves."""
    return " ".join(_of_weights(manifest) if is_of_single_weights(manifest) else _of_units(manifest))


def _of_units(manifest: Manifest) -> Iterator[str]:
    pairs = list(zip(manifest.base_widths, manifest.widths, strict=True))
    changed = sum(base != left for base, left in pairs)
    units = [words for unit, words in _UNITS.items() if any(getattr(a, unit) != getattr(b, unit) for a, b in pairs)]
    yield (
        f"Structured pruning removed {listed(units)} from {changed} of its {len(pairs)} layers, chosen by "
        f"{_chosen_by(manifest)}, so matrices are smaller, and so is the memory that training takes."
    )
    if loads_anywhere(manifest):
        yield "All layers have one width, which the family's own config says."


def _of_weights(manifest: Manifest) -> Iterator[str]:
    recipe = recipe_of(manifest).pruning
    if recipe.method is PruningMethod.SEMI_STRUCTURED:
        kept, of = recipe.pattern.kept, recipe.pattern.of
        what = f"Semi-structured pruning kept {kept} of every {of} neighbouring weights in each row"
    else:
        what = f"Unstructured pruning removed {recipe.ratio:.0%} of the weights"
    yield f"{what} of the pruned layers' matrices, chosen by {_chosen_by(manifest)}."
    yield (
        "Shapes are the base model's, with zeros where weights were pruned: loading and training take as much memory "
        "as a dense model of that size in the same precision."
    )
    if is_compressed(manifest):
        yield "The files hold only the weights that were kept, and one bit for each weight; loading expands them."
    yield "`pruning_masks.safetensors` says which weights were kept. Updates have to be masked with it."


def _chosen_by(manifest: Manifest) -> str:
    return criterion_spec(recipe_of(manifest).pruning.criterion).words

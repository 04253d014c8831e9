"""The model card on pruning: what was taken out, where, and what that means for memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from publisher.manifest.manifest import Manifest
from publisher.recipe import Criterion
from publisher.recipe.criteria.register import criterion_spec

_UNITS = {"kv_heads": "attention heads (whole KV groups)", "neurons": "MLP neurons", "experts": "experts"}


def method(manifest: Manifest) -> str:
    return str(_recipe(manifest).get("method", "structured"))


def is_of_single_weights(manifest: Manifest) -> bool:
    """Whether weights were pruned one by one, so that shapes are the base model's."""
    return method(manifest) != "structured"


def is_compressed(manifest: Manifest) -> bool:
    return _recipe(manifest).get("storage") == "compressed"


def loads_anywhere(manifest: Manifest) -> bool:
    """Whether transformers loads the checkpoint without this package."""
    if (manifest.recipe.get("quantization") or {}).get("include_embeddings"):
        return False
    if is_of_single_weights(manifest):
        return not is_compressed(manifest)
    return _recipe(manifest).get("layout") == "uniform"


def calibration_corpora(manifest: Manifest) -> set[str]:
    """Whose text importance was measured on."""
    criterion = _criterion(manifest)
    reads_text = criterion is not None and criterion_spec(criterion).reads_text
    return corpus_names(_recipe(manifest).get("calibration") or {}) if reads_text else set()


def corpus_names(part: Mapping[str, Any]) -> set[str]:
    """The corpora that a part of the recipe names, one as `corpus` or several as `corpora`."""
    several = {corpus["name"] for corpus in part.get("corpora", ())}
    return several | ({part["corpus"]} if part.get("corpus") else set())


def pruning(manifest: Manifest) -> str:
    """What was removed, by which measure, and what it saves."""
    return " ".join(_of_weights(manifest) if is_of_single_weights(manifest) else _of_units(manifest))


def _of_units(manifest: Manifest) -> Iterator[str]:
    pairs = list(zip(manifest.base_widths, manifest.widths, strict=True))
    changed = sum(base != left for base, left in pairs)
    units = [words for unit, words in _UNITS.items() if any(getattr(a, unit) != getattr(b, unit) for a, b in pairs)]
    yield (
        f"Structured pruning removed {_listed(units)} from {changed} of its {len(pairs)} layers, chosen by "
        f"{_chosen_by(manifest)}, so matrices are smaller, and so is the memory that training takes."
    )
    if loads_anywhere(manifest):
        yield "All layers have one width, which the family's own config says."


def _of_weights(manifest: Manifest) -> Iterator[str]:
    recipe = _recipe(manifest)
    if method(manifest) == "semi_structured":
        kept, _, of = str(recipe.get("pattern", "2:4")).partition(":")
        what = f"Semi-structured pruning kept {kept} of every {of} neighbouring weights in each row"
    else:
        what = f"Unstructured pruning removed {float(recipe['ratio']):.0%} of the weights"
    yield f"{what} of the pruned layers' matrices, chosen by {_chosen_by(manifest)}."
    yield (
        "Shapes are the base model's, with zeros where weights were pruned: loading and training take as much memory "
        "as a dense model of that size in the same precision."
    )
    if is_compressed(manifest):
        yield "The files hold only the weights that were kept, and one bit for each weight; loading expands them."
    yield "`pruning_masks.safetensors` says which weights were kept. Updates have to be masked with it."


def _criterion(manifest: Manifest) -> Criterion | None:
    """None for one that this version of the publisher does not know."""
    name = _recipe(manifest).get("criterion")
    return Criterion(name) if name in list(Criterion) else None


def _chosen_by(manifest: Manifest) -> str:
    criterion = _criterion(manifest)
    return str(_recipe(manifest).get("criterion")) if criterion is None else criterion_spec(criterion).words


def _listed(words: list[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part) or "nothing"


def _recipe(manifest: Manifest) -> dict[str, Any]:
    return dict(manifest.recipe.get("pruning") or {})

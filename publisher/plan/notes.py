"""What the numbers of a plan alone do not tell."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from publisher.architecture.geometry import Geometry
from publisher.architecture.sparsity import pattern_of
from publisher.architecture.widths import unprotected_layers, width_notes
from publisher.manifest.verdict import LEAST_DOCUMENTS
from publisher.plan.sizes import BF16, GIB, head_name
from publisher.recipe import Recipe, Scheme, Storage


def plan_notes(geometry: Geometry, recipe: Recipe) -> list[str]:
    """One sentence each."""
    return [
        *_of_whole_units(geometry, recipe),
        *width_notes(geometry, recipe.pruning),
        *_of_masks(geometry, recipe),
        *_of_quantization(geometry, recipe),
    ]


def certificate_notes(recipe: Recipe, corpus: str, held_out_documents: int) -> list[str]:
    """What is known of the certificate before anything is measured, of the `corpus` that it is measured on."""
    if recipe.evaluation is None or not recipe.evaluation.probe or held_out_documents >= LEAST_DOCUMENTS:
        return []
    asked = (
        ", and require_certificate true then publishes nothing" if recipe.evaluation.require_certificate is True else ""
    )
    return [
        f"corpus {corpus} holds out {held_out_documents} documents, and a certificate takes at least "
        f"{LEAST_DOCUMENTS}: it will be inconclusive{asked}"
    ]


def _of_whole_units(geometry: Geometry, recipe: Recipe) -> Iterator[str]:
    if recipe.pruning.method.removes_units:
        for unit, reason in geometry.whole.items():
            yield f"all {unit.replace('kv_', 'KV ')} stay: {reason}"


def _of_masks(geometry: Geometry, recipe: Recipe) -> Iterator[str]:
    pruning = recipe.pruning
    if pruning.method.removes_units:
        return
    layers = unprotected_layers(geometry, pruning)
    pattern = pattern_of(pruning)
    share = (
        f"{1 - pruning.ratio:.3g} of the weights"
        if pattern is None
        else f"{pattern.kept} of every {pattern.of} neighbouring weights"
    )
    yield f"{share} stay in the projections of layers {layers[0]}-{layers[-1]}; shapes stay, the others are zero"
    if pruning.storage is Storage.COMPRESSED:
        yield "storage compressed makes files smaller, not memory: weights are expanded on load"
    else:
        yield 'zeros are stored like other weights; storage "compressed" without quantization leaves them out'


def _of_quantization(geometry: Geometry, recipe: Recipe) -> Iterator[str]:
    fused = any(len(spec.shape) > 2 for kind in geometry.kinds for spec in kind.parameters.values())
    if recipe.quantization.scheme is Scheme.NF4 and fused:
        yield "transformers holds all experts of a layer in one tensor, which is no linear layer: they stay in bf16"
    if recipe.quantization.bf16_share:
        yield "bytes and memory count bf16_share whole; matrices that stay in bf16 may come to a little less"
    head = head_name(geometry)
    if recipe.quantization.include_embeddings and head is not None:
        gib = prod(geometry.outside[head]) * BF16 / GIB
        yield (
            "embeddings and LM head in 4 bits load with transformers after `import publisher.checkpoint`; while logits "
            f"are made, the head is written out in bf16: {gib:.2f} GiB that memory does not count"
        )

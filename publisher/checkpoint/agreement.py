"""Whether all that a checkpoint says is true of its weights: masks, config.json and manifest against the headers of
its files, and each against the others. Reads no weights, and needs neither transformers nor the base model.

`integrity` is what everybody who uses masks asks before; this is for `publisher verify`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from publisher.architecture.masks_file import FILE_NAME as MASKS
from publisher.checkpoint import integrity
from publisher.checkpoint.fitting import in_words
from publisher.checkpoint.provenance import is_weights
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.weight_masks import open_masks
from publisher.files.json_object import read_object
from publisher.manifest import manifest as manifests
from publisher.manifest import slsa_provenance
from publisher.manifest.manifest import Manifest
from publisher.weights.parameters import StoredParameters, read_parameters

_HEADERS = "the headers of the weights"
_IN_4_BITS, _COMPRESSED, _AS_THEY_ARE = "in 4 bits", "compressed", "as they are"
#: `quantization_config.quant_method` in config.json → how weights are stored: bitsandbytes', that of
#: publisher.loading.four_bit_everywhere and that of publisher.checkpoint.compression, which import transformers
FORMS = {"bitsandbytes": _IN_4_BITS, "loram_nf4": _IN_4_BITS, "loram_sparse": _COMPRESSED}


def disagreements(folder: Path, manifest: Manifest) -> list[str]:
    """What contradicts what in the checkpoint in `folder`, a clause each; empty: all agrees.

    Its files are known to be those of `manifest`. Raises RequestFault for masks or weights that cannot be read.
    """
    masks = open_masks(folder / MASKS)
    config = read_object(folder / integrity.CONFIG)
    stored = read_parameters(folder, but=MASKS)
    return [
        *integrity.differences(manifest, masks, config),
        *stored.misplaced,
        *masks.unfit(stored.shapes),
        *_of_counts(manifest, masks, stored),
        *_of_sizes(manifest, masks),
        *_of_config(config, manifest, stored),
        *_of_recipe(manifest),
        *slsa_provenance.contradictions(folder, manifest),
    ]


def _of_counts(manifest: Manifest, masks: PruningMasks, stored: StoredParameters) -> Iterator[str]:
    for which, stated, found in zip(
        ("the base model", "the checkpoint"),
        (manifest.parameters.base, manifest.parameters.pruned),
        masks.values(stored.shapes),
        strict=True,
    ):
        if stated != found:
            yield f"{which} has {stated:,} parameters by {manifests.FILE_NAME}, {found:,} by {_HEADERS} and the masks"
    for layer, (base, left) in enumerate(zip(manifest.base_widths, manifest.widths, strict=False)):
        if base.query_heads * left.kv_heads != left.query_heads * base.kv_heads:
            yield (
                f"layer {layer} has {left.query_heads} query heads on {left.kv_heads} KV heads by "
                f"{manifests.FILE_NAME}, and {base.query_heads} on {base.kv_heads} before pruning"
            )


def _of_sizes(manifest: Manifest, masks: PruningMasks) -> Iterator[str]:
    """Bytes of weights; masks of single weights count as such. Not every manifest lists the base model's files."""
    own = [name for name in manifest.files if is_weights(name) or (name == MASKS and masks.count_as_weights)]
    sums = {
        "the checkpoint": (manifest.bytes.checkpoint, sum(manifest.files[name].size for name in own)),
        "the base model": (
            manifest.bytes.base,
            sum(file.size for name, file in manifest.base.files.items() if name.endswith(".safetensors")),
        ),
    }
    for which, (stated, found) in sums.items():
        if stated != found and (which == "the checkpoint" or manifest.base.files):
            yield (
                f"{manifests.FILE_NAME} says that {which} has {stated:,} bytes of weights, and lists files of {found:,}"
            )


def _of_config(config: Mapping[str, Any], manifest: Manifest, stored: StoredParameters) -> Iterator[str]:
    sizes = {key: config.get(key) for key in ("vocab_size", "hidden_size")}
    table = next((name for name in stored.shapes if name.endswith(".embed_tokens.weight")), None)
    expected = tuple(size for size in sizes.values() if isinstance(size, int))
    if table is not None and len(expected) == 2 and stored.shapes[table] != expected:
        yield (
            f"{table} has shape {in_words(stored.shapes[table])}, and vocab_size × hidden_size are "
            f"{in_words(expected)} in {integrity.CONFIG}"
        )
    quantization = config.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
    form = FORMS.get(str(method), _AS_THEY_ARE)
    if form != _form_by_recipe(manifest):
        yield (
            f"weights are stored {form} by {integrity.CONFIG}, and {_form_by_recipe(manifest)} by the recipe in "
            f"{manifests.FILE_NAME}"
        )
    if bool(stored.four_bit) != (form == _IN_4_BITS):
        held = f"{len(stored.four_bit)} weights" if stored.four_bit else "no weight"
        yield f"the files hold {held} in 4 bits, and weights are stored {form} by {integrity.CONFIG}"


def _form_by_recipe(manifest: Manifest) -> str:
    pruning = manifest.recipe.get("pruning")
    if manifest.is_quantized:
        return _IN_4_BITS
    compressed = isinstance(pruning, Mapping) and pruning.get("storage") == "compressed"
    return _COMPRESSED if compressed else _AS_THEY_ARE


def _of_recipe(manifest: Manifest) -> Iterator[str]:
    canonical = json.dumps(manifest.recipe, sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(canonical.encode()).hexdigest() != manifest.recipe_digest:
        yield f"the recipe in {manifests.FILE_NAME} has another digest than recipe_digest says"

"""Whether a checkpoint's small files are what was published, and say the same: masks, config.json, manifest.

One flipped bit in the masks puts an adapter's rows to other places of the base model, without a word. So whoever uses
them asks here first. Weights are not hashed: `Manifest.verify` (`publisher verify`) does that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from publisher.architecture.structure import Unit
from publisher.checkpoint.masks import FILE_NAME as MASKS
from publisher.checkpoint.masks import Masks
from publisher.checkpoint.weight_masks import WeightMasks, open_masks
from publisher.errors import RequestFault
from publisher.files.json_object import read_object
from publisher.manifest import manifest as manifests
from publisher.manifest.manifest import Manifest, Widths
from publisher.weights.index import SINGLE_FILE

CONFIG = "config.json"
#: What families call the number of a layer's units. A name that is not here is not compared.
_COUNTED: Mapping[str, Unit] = {
    "num_key_value_heads": Unit.KV_HEADS,
    "intermediate_size": Unit.NEURONS,
    "num_experts": Unit.EXPERTS,
    "num_local_experts": Unit.EXPERTS,
    "n_routed_experts": Unit.EXPERTS,
}
#: What transformers takes where it stands beside other weights: a LoRA is applied, one file goes before several.
_LOADED = ("adapter_config.json", SINGLE_FILE)
_WAY_OUT = "Download the checkpoint again; publisher verify says which of its files are whole."


def checked(folder: Path) -> tuple[Manifest, Masks | WeightMasks]:
    """Manifest and masks of the checkpoint in `folder`, once they and config.json are known to be whole and to agree.

    Reads these three files, each once. Raises RequestFault naming the file, or the layer where two of them differ.
    """
    manifest = Manifest.read(folder)
    refuse_damaged(folder, manifest, MASKS, CONFIG)
    masks = open_masks(folder / MASKS)
    refuse_contradiction(folder, manifest, masks)
    return manifest, masks


def checked_masks(folder: Path) -> WeightMasks:
    """The masks of single weights in `folder`, compared with its manifest where it has one."""
    if (folder / manifests.FILE_NAME).is_file():
        refuse_damaged(folder, Manifest.read(folder), MASKS)
    return WeightMasks(folder / MASKS)


def refuse_damaged(folder: Path, manifest: Manifest, *names: str) -> None:
    """Raise RequestFault if one of the files `names` in `folder` has not the size and sha256 that `manifest` says."""
    problems = [problem for name in names if (problem := manifest.problem(folder, name))]
    if problems:
        raise RequestFault(
            f"{folder} is not the checkpoint that its manifest tells of: {problems[0]}", way_out=_WAY_OUT
        )


def strays(folder: Path, manifest: Manifest) -> list[str]:
    """Files in `folder` that are none of the checkpoint's and that loading would take, a sentence each."""
    found = [name for name in _LOADED if name not in manifest.files and (folder / name).is_file()]
    return [f"{name} is not among the files that {manifests.FILE_NAME} names, and loading takes it." for name in found]


def refuse_contradiction(folder: Path, manifest: Manifest, masks: Masks | WeightMasks) -> None:
    """Raise RequestFault if masks, widths in the manifest and widths in config.json are not of one model."""
    difference = next(_differences(manifest, masks, read_object(folder / CONFIG)), None)
    if difference:
        raise RequestFault(f"{folder} contradicts itself: {difference}.", way_out=_WAY_OUT)


def _differences(manifest: Manifest, masks: Masks | WeightMasks, config: Mapping[str, Any]) -> Iterator[str]:
    """The places where two files differ, a clause each."""
    layers = len(manifest.widths)
    if len(manifest.base_widths) != layers:
        yield f"{manifests.FILE_NAME} has widths of {layers} layers and of {len(manifest.base_widths)} before pruning"
    elif config.get("num_hidden_layers", layers) != layers:
        yield f"{CONFIG} has {config['num_hidden_layers']} layers, {manifests.FILE_NAME} {layers}"
    elif isinstance(masks, Masks):
        yield from _differences_of_layers(manifest, masks, config)
    elif manifest.widths != manifest.base_widths:
        yield f"{MASKS} removes single weights, and {manifests.FILE_NAME} whole heads or neurons"


def _differences_of_layers(manifest: Manifest, masks: Masks, config: Mapping[str, Any]) -> Iterator[str]:
    if masks.layers != len(manifest.widths):
        yield f"{MASKS} has {masks.layers} layers, {manifests.FILE_NAME} {len(manifest.widths)}"
        return
    for layer in range(masks.layers):
        left = masks.counts(layer)
        for unit, full in masks.kind(layer).units.items():
            for widths, count in ((manifest.base_widths[layer], full), (manifest.widths[layer], left[unit])):
                stated = _stated(widths, unit)
                if stated != count:
                    yield f"layer {layer} has {count} {unit} by {MASKS}, {stated} by {manifests.FILE_NAME}"
        for name, count in _of_config(masks, layer, config).items():
            unit = _COUNTED[name]
            if count != left[unit]:
                yield f"layer {layer} has {left[unit]} {unit} by {MASKS}, {name} {count} in {CONFIG}"


def _stated(widths: Widths, unit: Unit) -> int:
    return {Unit.KV_HEADS: widths.kv_heads, Unit.NEURONS: widths.neurons, Unit.EXPERTS: widths.experts}[unit]


def _of_config(masks: Masks, layer: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says of the units of a layer, by its own names.

    Without values by layer all layers have the global ones, which in a model of several kinds of layers may mean
    something else: then nothing is compared.
    """
    by_layer = config.get("per_layer_config")
    if not by_layer and len(masks.kinds) > 1:
        return {}
    own = {int(key): values for key, values in (by_layer or {}).items()}.get(layer, {})
    values = own if len(masks.kinds) > 1 else dict(config) | own
    return {name: values[name] for name, unit in _COUNTED.items() if name in values and unit in masks.kind(layer).units}

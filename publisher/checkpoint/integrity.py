"""Whether a checkpoint's small files are what was published, and say the same: masks, config.json, manifest.

One flipped bit in the masks puts an adapter's rows to other places of the base model, without a word. So whoever uses
them asks here first. Weights are not hashed: `Manifest.verify` (`publisher verify`) does that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from publisher.architecture.masks_file import FILE_NAME as MASKS
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.weight_masks import WeightMasks, open_masks
from publisher.errors import RequestFault
from publisher.files.json_object import read_object
from publisher.manifest import manifest as manifests
from publisher.manifest.manifest import Manifest
from publisher.weights.index import SINGLE_FILE

CONFIG = "config.json"
#: What transformers takes where it stands beside other weights: a LoRA is applied, one file goes before several.
_LOADED = ("adapter_config.json", SINGLE_FILE)
_WAY_OUT = "Download the checkpoint again; publisher verify says which of its files are whole."


def checked(folder: Path) -> tuple[Manifest, PruningMasks]:
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


def refuse_contradiction(folder: Path, manifest: Manifest, masks: PruningMasks) -> None:
    """Raise RequestFault if masks, widths in the manifest and widths in config.json are not of one model."""
    difference = next(differences(manifest, masks, read_object(folder / CONFIG)), None)
    if difference:
        raise RequestFault(f"{folder} contradicts itself: {difference}.", way_out=_WAY_OUT)


def differences(manifest: Manifest, masks: PruningMasks, config: Mapping[str, Any]) -> Iterator[str]:
    """The places where two of masks, `manifest` and `config` (config.json) differ, a clause each."""
    layers = len(manifest.widths)
    if len(manifest.base_widths) != layers:
        yield f"{manifests.FILE_NAME} has widths of {layers} layers and of {len(manifest.base_widths)} before pruning"
    elif config.get("num_hidden_layers", layers) != layers:
        yield f"{CONFIG} has {config['num_hidden_layers']} layers, {manifests.FILE_NAME} {layers}"
    else:
        yield from masks.contradictions(manifest, config)

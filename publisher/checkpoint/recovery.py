"""Recovery of an adapter folder: reads what PEFT saved, writes what carries it over to the base model.

Where heads, neurons or experts were removed that is a stock PEFT adapter; the tensors are placement.py's business, and
`recover_state` is it for adapters in memory. Where single weights were pruned, the update (B A) ∘ M has no low rank,
so no adapter holds it: then it is the base model with the update merged in (merging.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from publisher.checkpoint.adapter_config import for_base_model, refuse_unrecoverable, scaled
from publisher.checkpoint.adapter_folder import (
    WEIGHTS,
    opened_tensors,
    read_config,
    refuse_without_update,
    weights_file,
    write_config,
)
from publisher.checkpoint.manifest import BaseModelRecord, Manifest
from publisher.checkpoint.masks import FILE_NAME, Masks
from publisher.checkpoint.merging import Merge
from publisher.checkpoint.new_folder import refuse_occupied, renamed_when_whole
from publisher.checkpoint.placement import recover_state, recover_tensor, recovered_shape
from publisher.checkpoint.streaming import Entry, write_tensors
from publisher.checkpoint.weight_masks import WeightMasks, open_masks
from publisher.errors import RequestFault

__all__ = [
    "RecoveryReport",
    "merge_folder",
    "recover_adapter",
    "recover_folder",
    "recover_state",
    "recover_tensor",
]


@dataclass(frozen=True)
class RecoveryReport:
    """`widened` of `tensors` got rows or columns back; `trained_on` is what the adapter's own config names.

    `strength`: what the update was multiplied by. `merged`: `output` is not an adapter but the base model with the
    update in it, of `parameters_after`.
    """

    output: Path
    base_model: str
    revision: str | None
    trained_on: str | None
    tensors: int
    widened: int
    parameters_before: int
    parameters_after: int
    strength: float
    merged: bool = False


def recover_adapter(
    adapter: Path, checkpoint: Path, output: Path, *, base_model: str | None = None, strength: float | None = None
) -> RecoveryReport:
    """Make the LoRA in folder `adapter`, trained on `checkpoint`, into one for the base model, in `output`.

    The recovered adapter names `base_model` (a repository or folder) as its base, by default the one that the
    manifest names, pinned to its commit; refused if that is a name that only its publisher's machine knows. Of a
    checkpoint that lost single weights `output` becomes the base model with the masked update merged in; then
    `base_model` is a folder on this machine that holds the base model. The update is multiplied by `strength`; None:
    by the strength that the checkpoint's certificate found, 1 without one.

    Writes one tensor in memory at a time, under a temporary name beside `output`, and renames it when whole. Raises
    RequestFault, having written nothing, if the adapter does not fit the checkpoint, cannot be recovered exactly, or
    `output` already holds something.
    """
    manifest = Manifest.read(checkpoint)
    strength = manifest.strength if strength is None else strength
    masks = open_masks(checkpoint / FILE_NAME)
    if isinstance(masks, WeightMasks):
        return merge_folder(adapter, output, masks, _base_folder(base_model, manifest.base), strength=strength)
    if base_model is not None:
        return recover_folder(adapter, output, masks, base_model, None, strength=strength)
    _refuse_unnamed(manifest.base)
    return recover_folder(adapter, output, masks, manifest.base.repo_id, manifest.base.commit, strength=strength)


def _refuse_unnamed(base: BaseModelRecord) -> None:
    """An adapter that names a folder of the publisher's would be loaded onto whatever has that name elsewhere."""
    if not base.is_public:
        raise RequestFault(
            f"This checkpoint was made of a folder, {Path(base.repo_id).name}, and its publisher gave no repository "
            "where others get that model, so the base model has to be named.",
            field="base_model",
            way_out="Name its folder or repository with --base (base_model in Python).",
        )


def recover_folder(
    adapter: Path, output: Path, masks: Masks, base_model: str, revision: str | None, *, strength: float = 1.0
) -> RecoveryReport:
    """`recover_adapter` for a checkpoint that has no manifest yet."""
    refuse_occupied(output)
    config = _config(adapter, strength)
    with renamed_when_whole(output) as folder:
        before, after = _recover_weights(weights_file(adapter), folder / WEIGHTS, masks)
        write_config(folder, for_base_model(config, base_model, revision))
    return RecoveryReport(
        output=output,
        base_model=base_model,
        revision=revision,
        trained_on=config.get("base_model_name_or_path"),
        tensors=len(before),
        widened=sum(before[name] != after[name] for name in before),
        parameters_before=sum(map(prod, before.values())),
        parameters_after=sum(map(prod, after.values())),
        strength=strength,
    )


def merge_folder(
    adapter: Path, output: Path, masks: WeightMasks, base: Path, *, strength: float = 1.0
) -> RecoveryReport:
    """Write the base model in folder `base` with the update, masked by `masks`, of the LoRA in folder `adapter`."""
    refuse_occupied(output)
    config = _config(adapter, strength)
    with opened_tensors(weights_file(adapter)) as file:
        merge = Merge(config, file, masks, base)
        with renamed_when_whole(output) as folder:
            merge.write(folder)
        return RecoveryReport(
            output=output,
            base_model=str(base),
            revision=None,
            trained_on=config.get("base_model_name_or_path"),
            tensors=len(merge.tensors),
            widened=0,
            parameters_before=sum(map(prod, merge.tensors.values())),
            parameters_after=sum(prod(entry.shape) for entry in merge.base.entries.values()),
            strength=strength,
            merged=True,
        )


def _config(adapter: Path, strength: float) -> dict[str, Any]:
    config = read_config(adapter)
    refuse_unrecoverable(config)
    return scaled(config, strength)


def _base_folder(given: str | None, base: BaseModelRecord) -> Path:
    if given is None:
        _refuse_unnamed(base)
    folder = Path(given or base.repo_id)
    if (folder / "config.json").is_file():
        return folder
    pinned = f" --revision {base.commit}" if base.commit else ""
    raise RequestFault(
        "This checkpoint lost single weights, not heads and neurons: what was trained on it, (B A) ∘ M, is no stock "
        f"adapter but has to be merged into the base model, and {folder} is no folder of one.",
        way_out=f"Get it (hf download {base.repo_id}{pinned}) and name its folder with --base.",
    )


def _recover_weights(
    source: Path, target: Path, masks: Masks
) -> tuple[Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]]:
    """Stream the tensors; returns their shapes before and after, by name. All are checked before any is written."""
    with opened_tensors(source) as file:
        names = sorted(file.keys())
        slices = {name: file.get_slice(name) for name in names}
        before = {name: tuple(part.get_shape()) for name, part in slices.items()}
        refuse_without_update(source, names)
        after = {name: recovered_shape(name, shape, masks) for name, shape in before.items()}
        entries = [Entry(name, slices[name].get_dtype(), after[name]) for name in names]
        write_tensors(target, entries, lambda name: recover_tensor(name, file.get_tensor(name), masks))
    return before, after

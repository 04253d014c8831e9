"""An adapter for the base model, merged into a copy of it: one tensor in memory, at about the speed of copying."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from publisher.checkpoint.integrity import CONFIG
from publisher.checkpoint.model_weights import ModelWeights
from publisher.checkpoint.provenance import trained_on
from publisher.checkpoint.recovery.folder import read_config, refuse_occupied, renamed_when_whole
from publisher.checkpoint.recovery.merging import Merge
from publisher.checkpoint.recovery.model_copy import Progress, silent
from publisher.checkpoint.recovery.nothing_pruned import NothingPruned
from publisher.checkpoint.recovery.opening import SavedAdapter, opened
from publisher.checkpoint.recovery.report import TrainedOn, notes_on
from publisher.checkpoint.recovery.whole_parameters import Origins
from publisher.errors import RequestFault


@dataclass(frozen=True)
class MergeReport:
    """`changed` of the base model's `weights` (tensors): those that the adapter reaches. `notes`: what else there is to
    know, a sentence each."""

    output: Path
    changed: int
    weights: int
    notes: tuple[str, ...]


def merge_adapter(
    base: Path, adapter: Path, output: Path, *, strength: float = 1.0, progress: Progress = silent
) -> MergeReport:
    """Write the model in folder `base` with the adapter in folder `adapter`, which is one for it, merged in.

    `output` appears when it is whole. Weights that the adapter does not change are copied bit by bit, the others are
    computed in fp32 or better and rounded once. Raises RequestFault, having written nothing, if the adapter was trained
    on a checkpoint and not recovered, does not fit the model, holds what is no finite number, or `output` already holds
    something.
    """
    refuse_occupied(output)
    _refuse_no_model(base)
    _refuse_unrecovered(adapter)
    saved = SavedAdapter.read(adapter, strength, recovered=True)
    weights = ModelWeights(base)
    known = TrainedOn(base, Origins(weights, weights, same=True))
    masks = NothingPruned()
    with opened(saved, masks, base, known) as loaded:
        merge = Merge(saved.method, loaded, masks, base)
        for name, shape in loaded.tensors.shapes.items():
            if loaded.places is not None:
                loaded.places.refuse_misfit(name, shape)
        notes = tuple(notes_on(loaded, saved.method))
        with renamed_when_whole(output) as folder:
            merge.write(folder, progress)
    return MergeReport(output, merge.changed, len(merge.base.entries), notes)


def _refuse_no_model(base: Path) -> None:
    if not (base / CONFIG).is_file():
        raise RequestFault(f"{base} is no folder of a model: it has no {CONFIG}.", way_out="Name the base model's.")


def _refuse_unrecovered(adapter: Path) -> None:
    tie = trained_on(read_config(adapter))
    if tie is not None:
        raise RequestFault(
            f"{adapter} was trained on checkpoint {tie.checkpoint[:12]} and is not recovered: it is no adapter of the "
            "base model.",
            way_out="Recover it with publisher recover, and merge what that writes; or recover it with --merge.",
        )

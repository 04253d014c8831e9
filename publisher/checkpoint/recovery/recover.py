"""Recovery of an adapter folder: reads what PEFT saved, writes what carries it over to the base model.

Where heads, neurons or experts were removed that is a stock PEFT adapter; where single weights were pruned, the update
(B A) ∘ M has no low rank, so no adapter holds it: then it is the base model with the update merged in (merging.py).
Which of the two it is the adapter's method says (methods/). Everything is checked before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from publisher.architecture.structure import Shape
from publisher.checkpoint.integrity import checked
from publisher.checkpoint.model_weights import ModelWeights, Repository
from publisher.checkpoint.provenance import Tie, recovered, settled
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.base_identity import note_on_base
from publisher.checkpoint.recovery.chosen import BY_THE_METHOD, Chosen
from publisher.checkpoint.recovery.folder import (
    WEIGHTS,
    for_base_model,
    read_config,
    refuse_occupied,
    renamed_when_whole,
    write_config,
)
from publisher.checkpoint.recovery.merging import Merge
from publisher.checkpoint.recovery.method import AdapterMethod, Update
from publisher.checkpoint.recovery.methods import method_of
from publisher.checkpoint.recovery.model_copy import Progress, silent
from publisher.checkpoint.recovery.opening import SavedAdapter, opened
from publisher.checkpoint.recovery.places import AdapterPlaces
from publisher.checkpoint.recovery.report import (
    RecoveryReport,
    TrainedOn,
    notes_on,
    notes_on_masking,
    notes_on_wholes,
)
from publisher.checkpoint.recovery.serving import served
from publisher.checkpoint.recovery.whole_parameters import Origins, refuse_cut
from publisher.errors import RequestFault
from publisher.manifest.manifest import BaseModelRecord, Manifest
from publisher.weights.writing import Entry, dtype_name, write_tensors

_WHY_MASKED = "This checkpoint lost single weights, not heads and neurons: what was trained on it, (B A) ∘ M,"
_WHY_MERGED = "What was trained with {}"
_UNSEALED = (
    "The checkpoint's manifest is of an older version and has no digest of its own: whether it was edited is unknown."
)


def recover_adapter(
    adapter: Path,
    checkpoint: Path,
    output: Path,
    *,
    base_model: str | None = None,
    strength: float | None = None,
    repository: Repository | None = None,
    force: bool = False,
    rank: int | None = None,
    merge: bool = False,
    strict: bool = False,
    progress: Progress = silent,
) -> RecoveryReport:
    """Make the adapter in folder `adapter`, trained on `checkpoint`, into one for the base model, in `output`.

    The recovered adapter names `base_model` (a repository or folder) as its base, by default the one that the
    manifest names, pinned to its commit; refused if that is a name that only its publisher's machine knows. Of a
    checkpoint that lost single weights `output` becomes the base model with the masked update merged in; then
    `base_model` is a folder on this machine that holds the base model. The update is multiplied by `strength`; None:
    by the strength that the checkpoint's certificate found, 1 without one. Parameters that the adapter holds whole
    (modules_to_save, embeddings, biases) are not multiplied: what training changed of them is added to the base
    model's, for which `checkpoint`, or else `repository` that it came from, and the base model have to be at hand.

    What an adapter method becomes by itself is in docs/adapters.md. `rank` asks for a LoRA of that rank instead, whose
    error the report states; `merge` for the base model with the update in it; `strict` refuses whatever is not the
    trained update exactly: what depends on the checkpoint's own weights, and a LoRA that leaves something out.

    Writes one tensor in memory at a time, under a temporary name beside `output`, and renames it when whole; `progress`
    hears of merging. Raises
    RequestFault, having written nothing, if the adapter does not fit the checkpoint, cannot be recovered exactly, holds
    a tensor that PEFT would not load on the base model, or `output` already holds something; if the checkpoint's masks,
    config and manifest are damaged or contradict each other; if the adapter says that it was trained on another
    checkpoint or was recovered already, and if `base_model` is of another family or size. `force` takes another
    checkpoint and another base model.
    """
    manifest, masks = checked(checkpoint)
    tie = Tie.of(manifest)
    config = read_config(adapter)
    provenance = settled(config, tie, where=checkpoint, force=force)
    method, chosen = method_of(config), Chosen(rank, merge, strict)
    method.refuse(config)
    chosen.refuse_contradiction(method)
    as_adapter = chosen.ends_as_adapter(method, masks)
    if base_model is None and as_adapter:
        _refuse_unnamed(manifest.base)
    note = note_on_base(base_model, checkpoint, manifest, masks, force=force)
    if strength is None:
        strength = manifest.strength if method.multiplied else 1.0
    base = base_model or manifest.base.repo_id
    revision = None if base_model else manifest.base.commit
    trained_on = TrainedOn(checkpoint, _origins(checkpoint, repository, _weights(base, revision), manifest))
    if as_adapter:
        record = recovered(tie, provenance, base, revision)
        report = recover_folder(
            adapter,
            output,
            masks,
            base,
            revision,
            strength=strength,
            trained_on=trained_on,
            record=record,
            chosen=chosen,
        )
    else:
        folder = _base_folder(base_model, manifest.base, _why_merged(method, masks, chosen))
        report = merge_folder(
            adapter, output, masks, folder, strength=strength, trained_on=trained_on, progress=progress
        )
    unsealed = [] if manifest.digest else [_UNSEALED]
    return replace(report, provenance=provenance, notes=(*report.notes, *filter(None, [note]), *unsealed))


def _why_merged(method: AdapterMethod, masks: PruningMasks, chosen: Chosen) -> str:
    if chosen.merge:
        return "With --merge what becomes of the adapter"
    return _WHY_MERGED.format(method.title) if masks.update_masks is None else _WHY_MASKED


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
    adapter: Path,
    output: Path,
    masks: PruningMasks,
    base_model: str,
    revision: str | None,
    *,
    strength: float = 1.0,
    trained_on: TrainedOn | None = None,
    record: Mapping[str, Any] | None = None,
    chosen: Chosen = BY_THE_METHOD,
) -> RecoveryReport:
    """`recover_adapter` for a checkpoint that has no manifest yet.

    `record`: what the recovered adapter says of itself (publisher.checkpoint.provenance).
    Without `trained_on` the adapter is taken for one that PEFT saved: whole parameters are refused, and names
    are not looked into.
    """
    refuse_occupied(output)
    saved = SavedAdapter.read(adapter, strength)
    method = saved.method
    with opened(saved, masks, trained_on.folder if trained_on else None, trained_on, chosen.rank) as loaded:
        notes = [*notes_on_wholes(loaded), *notes_on(loaded, method)]
        recovery = _Recovery(method, loaded, method.recovered(loaded, masks), masks)
        chosen.refuse_lossy(recovery.update)
        before, entries = loaded.tensors.shapes, recovery.entries()
        engines = served(recovery.config, [entry.name for entry in entries])
        notes += recovery.update.notes
        with renamed_when_whole(output) as folder:
            write_tensors(folder / WEIGHTS, entries, recovery.tensor)
            write_config(folder, for_base_model(recovery.config, base_model, revision, record))
    places = loaded.places
    return RecoveryReport(
        output=output,
        base_model=base_model,
        revision=revision,
        trained_on=saved.config.get("base_model_name_or_path"),
        tensors=len(before),
        widened=sum(before.get(entry.name, entry.shape) != entry.shape for entry in entries),
        parameters_before=sum(map(prod, before.values())),
        parameters_after=sum(prod(entry.shape) for entry in entries),
        strength=strength,
        vocabulary=_resized(before, places),
        loaded_by=RecoveryReport.loaded_by if places is None else places.loaded_by,
        labels=None if places is None else places.labels(before),
        served=engines,
        notes=tuple(notes),
    )


def merge_folder(
    adapter: Path,
    output: Path,
    masks: PruningMasks,
    base: Path,
    *,
    strength: float = 1.0,
    trained_on: TrainedOn | None = None,
    progress: Progress = silent,
) -> RecoveryReport:
    """Write the base model in folder `base` with the update of the adapter in folder `adapter`, masked by `masks`."""
    refuse_occupied(output)
    saved = SavedAdapter.read(adapter, strength)
    method = saved.method
    with opened(saved, masks, base if trained_on is None else trained_on.folder, trained_on) as loaded:
        merge = Merge(method, loaded, masks, base)
        _refuse_misfits(loaded)
        masking = [] if masks.update_masks is None else notes_on_masking(adapter)
        notes = [*masking, *notes_on(loaded, method)]
        with renamed_when_whole(output) as folder:
            merge.write(folder, progress)
        shapes = loaded.tensors.shapes
        return RecoveryReport(
            output=output,
            base_model=str(base),
            revision=None,
            trained_on=saved.config.get("base_model_name_or_path"),
            tensors=len(shapes),
            widened=0,
            parameters_before=sum(map(prod, shapes.values())),
            parameters_after=sum(prod(entry.shape) for entry in merge.base.entries.values()),
            strength=strength,
            merged=True,
            notes=tuple(notes),
        )


@dataclass(frozen=True)
class _Recovery:
    """What is written of a recovered adapter: its `update`, as the method made it, and whole parameters."""

    method: AdapterMethod
    adapter: Adapter
    update: Update
    masks: PruningMasks

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.update.config) | dict(method_of(self.update.config).trained)

    def entries(self) -> list[Entry]:
        """Sorted by name; refuses what does not fit or cannot be recovered."""
        tensors = self.adapter.tensors
        for name in tensors.wholes:
            refuse_cut(name, self.masks, self.method.title)
        _refuse_misfits(self.adapter)
        wholes = [Entry(name, dtype_name(self._whole(name).dtype), tensors.shape(name)) for name in tensors.wholes]
        return sorted([*self.update.entries, *wholes], key=lambda entry: entry.name)

    def tensor(self, name: str) -> Tensor:
        tensors = self.adapter.tensors
        own = name in tensors.names and tensors.naming.is_whole(name)
        return self._whole(name) if own else self.update.tensor(name)

    def _whole(self, name: str) -> Tensor:
        if self.adapter.whole is None:
            raise RequestFault(
                f"{name} is a whole parameter, and what it was before training is not known.",
                way_out="Save the adapter, and recover its folder with the checkpoint's.",
            )
        return self.adapter.whole.recovered(name, self.adapter.tensors.read(name))


def _refuse_misfits(adapter: Adapter) -> None:
    if adapter.places is not None:
        for name, shape in adapter.tensors.shapes.items():
            adapter.places.refuse_misfit(name, shape)


def _base_folder(given: str | None, base: BaseModelRecord, reason: str) -> Path:
    """The base model that an update is merged into; `reason`: why it is no stock adapter."""
    if given is None:
        _refuse_unnamed(base)
    folder = Path(given or base.repo_id)
    if (folder / "config.json").is_file():
        return folder
    pinned = f" --revision {base.commit}" if base.commit else ""
    raise RequestFault(
        f"{reason} is no stock adapter but has to be merged into the base model, and {folder} is no folder of one.",
        way_out=f"Get it (hf download {base.repo_id}{pinned}) and name its folder with --base.",
    )


def _weights(model: str, revision: str | None) -> ModelWeights:
    folder = Path(model)
    return ModelWeights(folder if folder.is_dir() else Repository(model, revision))


def _origins(checkpoint: Path, repository: Repository | None, base: ModelWeights, manifest: Manifest) -> Origins:
    here = ModelWeights(checkpoint)
    own = here if here.here or repository is None else ModelWeights(repository)
    return Origins(own, base, equal=manifest.alignment is None and not manifest.is_quantized)


def _resized(shapes: Mapping[str, Shape], places: AdapterPlaces | None) -> int | None:
    """Rows of the adapter's embeddings, where the model's are not as many."""
    if places is None:
        return None
    sizes = {size for name, shape in shapes.items() for size in places.resized(name, shape)}
    return max(sizes, default=None)

"""Recovery of an adapter folder: reads what PEFT saved, writes what carries it over to the base model.

Where heads, neurons or experts were removed that is a stock PEFT adapter: where its updates go is placement.py's
business, what becomes of parameters that it holds whole that of whole_parameters.py, and `recover_state` is it for
adapters in memory. Where single weights were pruned, the update (B A) ∘ M has no low rank, so no adapter holds it: then
it is the base model with the update merged in (merging.py). Everything is checked before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from publisher.architecture.structure import Shape
from publisher.checkpoint import adapter_places
from publisher.checkpoint.adapter_config import for_base_model, refuse_unrecoverable, scaled
from publisher.checkpoint.adapter_folder import WEIGHTS, read_config, weights_file, write_config
from publisher.checkpoint.adapter_places import AdapterPlaces
from publisher.checkpoint.adapter_tensors import AdapterTensors, opened_adapter
from publisher.checkpoint.base_identity import note_on_base
from publisher.checkpoint.integrity import checked
from publisher.checkpoint.masks import Masks
from publisher.checkpoint.merging import Merge
from publisher.checkpoint.model_weights import ModelWeights, Repository
from publisher.checkpoint.new_folder import refuse_occupied, renamed_when_whole
from publisher.checkpoint.placement import (
    recover_state,
    recover_tensor,
    recovered_shape,
    refuse_other_layers,
)
from publisher.checkpoint.provenance import Provenance, Tie, recovered, refuse_recovered, settled
from publisher.checkpoint.tying import MARK_FILE
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.checkpoint.whole_parameters import Origins, WholeParameters, is_whole, parameter_of
from publisher.errors import RequestFault
from publisher.manifest.manifest import BaseModelRecord, Manifest
from publisher.weights.writing import Entry, dtype_name, write_tensors

__all__ = [
    "RecoveryReport",
    "TrainedOn",
    "merge_folder",
    "recover_adapter",
    "recover_folder",
    "recover_state",
    "recover_tensor",
]


_UNSEALED = (
    "The checkpoint's manifest is of an older version and has no digest of its own: whether it was edited is unknown."
)


@dataclass(frozen=True)
class RecoveryReport:
    """`widened` of `tensors` got rows or columns back; `trained_on` is what the adapter's own config names.

    `strength`: what the update was multiplied by. `merged`: `output` is not an adapter but the base model with the
    update in it, of `parameters_after`. `vocabulary`: rows that the adapter's embeddings have, where training changed
    their number: the base model has to be resized before it takes the adapter. `provenance`: whether the adapter is
    known to be of the checkpoint. `loaded_by`: the class of transformers that takes the adapter, with `labels` where
    it is a classifier. `notes`: what else its owner should know, a sentence each.
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
    vocabulary: int | None = None
    provenance: Provenance = Provenance.UNVERIFIED
    loaded_by: str = "AutoModelForCausalLM"
    labels: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainedOn:
    """The checkpoint: `folder` has its config.json, `origins` the values that parameters had before training."""

    folder: Path
    origins: Origins


def recover_adapter(
    adapter: Path,
    checkpoint: Path,
    output: Path,
    *,
    base_model: str | None = None,
    strength: float | None = None,
    repository: Repository | None = None,
    force: bool = False,
) -> RecoveryReport:
    """Make the LoRA in folder `adapter`, trained on `checkpoint`, into one for the base model, in `output`.

    The recovered adapter names `base_model` (a repository or folder) as its base, by default the one that the
    manifest names, pinned to its commit; refused if that is a name that only its publisher's machine knows. Of a
    checkpoint that lost single weights `output` becomes the base model with the masked update merged in; then
    `base_model` is a folder on this machine that holds the base model. The update is multiplied by `strength`; None:
    by the strength that the checkpoint's certificate found, 1 without one. Parameters that the adapter holds whole
    (modules_to_save, embeddings, biases) are not multiplied: what training changed of them is added to the base
    model's, for which `checkpoint`, or else `repository` that it came from, and the base model have to be at hand.

    Writes one tensor in memory at a time, under a temporary name beside `output`, and renames it when whole. Raises
    RequestFault, having written nothing, if the adapter does not fit the checkpoint, cannot be recovered exactly, holds
    a tensor that PEFT would not load on the base model, or `output` already holds something; if the checkpoint's masks,
    config and manifest are damaged or contradict each other; if the adapter says that it was trained on another
    checkpoint or was recovered already, and if `base_model` is of another family or size. `force` takes another
    checkpoint and another base model.
    """
    manifest, masks = checked(checkpoint)
    tie = Tie.of(manifest)
    provenance = settled(read_config(adapter), tie, where=checkpoint, force=force)
    if base_model is None and isinstance(masks, Masks):
        _refuse_unnamed(manifest.base)
    note = note_on_base(base_model, checkpoint, manifest, masks, force=force)
    strength = manifest.strength if strength is None else strength
    base = base_model or manifest.base.repo_id
    revision = None if base_model else manifest.base.commit
    trained_on = TrainedOn(checkpoint, _origins(checkpoint, repository, _weights(base, revision), manifest))
    if isinstance(masks, WeightMasks):
        folder = _base_folder(base_model, manifest.base)
        report = merge_folder(adapter, output, masks, folder, strength=strength, trained_on=trained_on)
    else:
        record = recovered(tie, provenance, base, revision)
        report = recover_folder(
            adapter, output, masks, base, revision, strength=strength, trained_on=trained_on, record=record
        )
    unsealed = [] if manifest.digest else [_UNSEALED]
    return replace(report, provenance=provenance, notes=(*report.notes, *filter(None, [note]), *unsealed))


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
    masks: Masks,
    base_model: str,
    revision: str | None,
    *,
    strength: float = 1.0,
    trained_on: TrainedOn | None = None,
    record: Mapping[str, Any] | None = None,
) -> RecoveryReport:
    """`recover_adapter` for a checkpoint that has no manifest yet.

    `record`: what the recovered adapter says of itself (publisher.checkpoint.provenance).
    Without `trained_on` the adapter is taken for a plain LoRA that PEFT saved: whole parameters are refused, and names
    are not looked into.
    """
    refuse_occupied(output)
    config = _config(adapter, strength)
    with _opened(adapter, config, None if trained_on is None else trained_on.folder, masks) as (tensors, places):
        recovery = _Recovery(tensors, masks, places, _whole(trained_on, config, places))
        before, entries = tensors.shapes, recovery.entries()
        notes = [*recovery.notes(), *_notes(tensors, places)]
        with renamed_when_whole(output) as folder:
            write_tensors(folder / WEIGHTS, entries, recovery.tensor)
            write_config(folder, for_base_model(config, base_model, revision, record))
    return RecoveryReport(
        output=output,
        base_model=base_model,
        revision=revision,
        trained_on=config.get("base_model_name_or_path"),
        tensors=len(before),
        widened=sum(before[entry.name] != entry.shape for entry in entries),
        parameters_before=sum(map(prod, before.values())),
        parameters_after=sum(prod(entry.shape) for entry in entries),
        strength=strength,
        vocabulary=_resized(before, places),
        loaded_by=RecoveryReport.loaded_by if places is None else places.loaded_by,
        labels=None if places is None else places.labels(before),
        notes=tuple(notes),
    )


def merge_folder(
    adapter: Path,
    output: Path,
    masks: WeightMasks,
    base: Path,
    *,
    strength: float = 1.0,
    trained_on: TrainedOn | None = None,
) -> RecoveryReport:
    """Write the base model in folder `base` with the update, masked by `masks`, of the LoRA in folder `adapter`."""
    refuse_occupied(output)
    config = _config(adapter, strength)
    with _opened(adapter, config, base) as (tensors, places):
        merge = Merge(config, tensors, masks, base, _whole(trained_on, config, places))
        _refuse_misfits(tensors, places)
        notes = [*_of_masks(adapter), *_notes(tensors, places)]
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
            notes=tuple(notes),
        )


@dataclass(frozen=True)
class _Recovery:
    """What becomes of each tensor of an adapter, by PEFT's names."""

    tensors: AdapterTensors
    masks: Masks
    places: AdapterPlaces | None
    whole: WholeParameters | None

    def entries(self) -> list[Entry]:
        """What will be written; refuses what does not fit or cannot be recovered."""
        shapes = {name: recovered_shape(name, shape, self.masks) for name, shape in self.tensors.shapes.items()}
        _refuse_misfits(self.tensors, self.places)
        return [Entry(name, self._dtype(name), shape) for name, shape in shapes.items()]

    def tensor(self, name: str) -> Tensor:
        saved = self.tensors.read(name)
        if is_whole(name) and self.whole is not None:
            return self.whole.recovered(name, saved)
        return recover_tensor(name, saved, self.masks)

    def notes(self) -> Iterator[str]:
        own = [] if self.places is None else self.places.of_classifiers(self.tensors.names)
        whole = [name for name in self.tensors.names if is_whole(name) and name not in own]
        if whole:
            yield (
                f"{len(whole)} tensors are whole parameters ({parameter_of(whole[0])}): what training changed of them "
                "was added to the base model's."
            )

    def _dtype(self, name: str) -> str:
        return dtype_name(self.tensor(name).dtype) if is_whole(name) else self.tensors.dtype(name)


def _refuse_misfits(tensors: AdapterTensors, places: AdapterPlaces | None) -> None:
    if places is not None:
        for name, shape in tensors.shapes.items():
            places.refuse_misfit(name, shape)


def _whole(
    trained_on: TrainedOn | None, config: Mapping[str, Any], places: AdapterPlaces | None
) -> WholeParameters | None:
    return None if trained_on is None or places is None else WholeParameters(trained_on.origins, config, places)


@contextmanager
def _opened(
    adapter: Path, config: Mapping[str, Any], model: Path | None, masks: Masks | None = None
) -> Iterator[tuple[AdapterTensors, AdapterPlaces | None]]:
    """The adapter under PEFT's names, and all its places on the model whose config is in folder `model`."""
    with opened_adapter(weights_file(adapter)) as tensors:
        if masks is not None:
            refuse_other_layers(tensors.names, masks)
        if model is None:
            yield tensors, None
        else:
            places = adapter_places.places(model, config)
            yield tensors.placed(places), places


def _config(adapter: Path, strength: float) -> dict[str, Any]:
    config = read_config(adapter)
    refuse_recovered(config)
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


def _notes(tensors: AdapterTensors, places: AdapterPlaces | None) -> Iterator[str]:
    """Reads every tensor: RequestFault naming one that is not finite."""
    idle, adapted = tensors.idle(), tensors.adapted()
    if len(idle) == len(adapted):
        yield "This adapter is not trained: every update in it is zero (B = 0), and adds nothing to the base model."
    elif idle:
        yield f"{len(idle)} of {len(adapted)} adapted modules have no update (B = 0), {idle[0]} among them."
    for place, saved in list(tensors.renamed.items())[:1]:
        yield f"{len(tensors.renamed)} tensors were not named as PEFT names them ({saved}), and are now ({place})."
    if tensors.packed:
        yield f"In 4 bits, so not trained, and left out (the base model's own stay): {', '.join(tensors.packed)}."
    missing = [] if places is None else places.missing(tensors.names)
    if missing:
        yield (
            f"adapter_config.json names modules that the adapter has nothing for: {len(missing)} tensors are missing "
            f"({missing[0]}), and those modules of the base model stay as they are."
        )


def _of_masks(adapter: Path) -> Iterator[str]:
    if not (adapter / MARK_FILE).is_file():
        yield (
            "The adapter does not say that its update was masked in training (mask_adapter; older versions did not "
            "write it): it is masked now, and what it did through pruned weights is lost."
        )

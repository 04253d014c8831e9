"""Any fine-tuned copy of a checkpoint, whatever made it: its difference to the checkpoint is for the base model.

Full fine-tuning, adapters that were merged, averages of several: what they did is the difference of the copy's weights
to the checkpoint's, one tensor at a time, put back at the kept places, and added to the base model's or made a LoRA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import Any

from torch import Tensor

from publisher.checkpoint.integrity import checked
from publisher.checkpoint.model_weights import ModelWeights, Repository
from publisher.checkpoint.recovery.as_lora import lora_of
from publisher.checkpoint.recovery.base_identity import note_on_base
from publisher.checkpoint.recovery.changes import ModuleChange, Target
from publisher.checkpoint.recovery.folder import (
    WEIGHTS,
    for_base_model,
    refuse_occupied,
    renamed_when_whole,
    write_config,
)
from publisher.checkpoint.recovery.merging import merged_weight
from publisher.checkpoint.recovery.model_copy import Progress, Rows, rows_of, silent, write_model
from publisher.checkpoint.recovery.naming import Naming
from publisher.checkpoint.recovery.places import places
from publisher.checkpoint.recovery.report import RecoveryReport
from publisher.checkpoint.recovery.serving import Served, served
from publisher.checkpoint.recovery.tuned_copy import Moved, TunedCopy, refuse_no_copy
from publisher.checkpoint.recovery.whole_parameters import refuse_overflow
from publisher.errors import RequestFault
from publisher.weights.folder import StoredWeights
from publisher.weights.writing import write_tensors

_LINEAR = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 1, "target_modules": "all-linear"}


def recover_merged(
    tuned: Path,
    checkpoint: Path,
    output: Path,
    *,
    base_model: str | None = None,
    rank: int | None = None,
    repository: Repository | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> RecoveryReport:
    """Make the model in folder `tuned`, a fine-tuned copy of `checkpoint`, into what it is for the base model.

    Without `rank` that is the base model, of which `base_model` names the folder, with the difference added to its
    weights; with it a LoRA of that rank, whose report states what it leaves out: the truncation, and whatever is no
    linear layer (norms, embeddings, the head). Raises RequestFault, having written nothing, for a copy in 4 bits, one
    of another checkpoint (other names or shapes, another's manifest, weights that are far away; `force` takes the last
    two), one without a difference, and one with what is no finite number.
    """
    refuse_occupied(output)
    engines: tuple[Served, ...]
    manifest, masks = checked(checkpoint)
    note = note_on_base(base_model, checkpoint, manifest, masks, force=force)
    here = ModelWeights(checkpoint)
    own = here if here.here or repository is None else ModelWeights(repository)
    refuse_no_copy(tuned, manifest, force=force)
    copy = TunedCopy(StoredWeights(tuned), own, masks)
    moved = copy.moved(force=force)
    base = base_model or manifest.base.repo_id
    revision = None if base_model else manifest.base.commit
    if rank is None:
        notes, engines = _write_merged(copy, moved, Path(base), output, progress), ()
    else:
        targets = places(checkpoint, _LINEAR, Naming((".lora_",)), masks).targets
        update = lora_of(_Linear(copy, targets), _config(targets), masks, rank)
        notes = (*update.notes, *_left_out(moved, targets))
        engines = served(update.config, [entry.name for entry in update.entries])
        with renamed_when_whole(output) as folder:
            write_tensors(folder / WEIGHTS, update.entries, update.tensor)
            write_config(folder, for_base_model(update.config, base, revision))
    return RecoveryReport(
        output=output,
        base_model=base,
        revision=revision,
        trained_on=str(checkpoint),
        tensors=len(moved),
        widened=sum(copy.is_cut(name) for name in moved),
        parameters_before=copy.parameters,
        parameters_after=manifest.parameters.base,
        strength=1.0,
        merged=rank is None,
        served=engines,
        notes=(*notes, *filter(None, [note])),
    )


@dataclass(frozen=True)
class _Linear:
    """The differences of linear layers (Changes)."""

    copy: TunedCopy
    targets: Mapping[str, Target]

    def of(self, module: str) -> ModuleChange:
        bias = self.copy.difference(f"{module}.bias") if self.targets[module].biased else None
        return ModuleChange(self.copy.difference(f"{module}.weight"), bias)


def _config(targets: Mapping[str, Target]) -> dict[str, Any]:
    names = sorted({name.rpartition(".")[2] for name in targets})
    return {"task_type": "CAUSAL_LM", "target_modules": names, "inference_mode": True}


def _left_out(moved: Moved, targets: Mapping[str, Target]) -> Iterator[str]:
    """What no LoRA of linear layers holds."""
    others = [name for name in moved if name.rpartition(".")[0] not in targets]
    if others:
        share = hypot(*(moved[name] for name in others)) / hypot(*moved.values())
        yield (
            f"{len(others)} tensors that changed are no linear layers of the decoder and not in the LoRA, {others[0]} "
            f"among them: {share:.2%} of the change's norm. Without --rank they are merged into the base model."
        )


def _write_merged(copy: TunedCopy, moved: Moved, base: Path, output: Path, progress: Progress) -> tuple[str, ...]:
    if not (base / "config.json").is_file():
        raise RequestFault(
            f"The difference is merged into the base model, and {base} is no folder of one.",
            field="base_model",
            way_out="Name its folder with --base, or give a --rank.",
        )
    stored = StoredWeights(base)
    for name in moved:
        _refuse_unfitting(copy, name, stored)

    def merged(name: str, weight: Tensor) -> Rows:
        if name not in moved:
            return rows_of(weight)
        found = merged_weight(weight, copy.wide(name), copy.masks.mask_of(name))
        refuse_overflow(name, found)
        return rows_of(found)

    with renamed_when_whole(output) as folder:
        write_model(stored, folder, merged, progress)
    return ()


def _refuse_unfitting(copy: TunedCopy, name: str, base: StoredWeights) -> None:
    found = copy.masks.parameter(name)
    shape = copy.tuned.entries[name].shape if found is None else found.full
    entry = base.entries.get(name)
    if entry is None or entry.shape != shape:
        raise RequestFault(
            f"{name} is for a weight of shape {shape}, and {base.folder} has "
            f"{'none of that name' if entry is None else f'one of shape {entry.shape}'}.",
            way_out="Name the full-precision base model that the checkpoint was made from.",
        )

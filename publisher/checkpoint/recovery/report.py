"""What recovery did, and what the adapter's owner should know of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from publisher.checkpoint.provenance import MARK_FILE, Provenance
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.method import AdapterMethod
from publisher.checkpoint.recovery.serving import Served
from publisher.checkpoint.recovery.whole_parameters import Origins


@dataclass(frozen=True)
class RecoveryReport:
    """`widened` of `tensors` got rows or columns back; `trained_on` is what the adapter's own config names.

    `strength`: what the update was multiplied by. `merged`: `output` is not an adapter but the base model with the
    update in it, of `parameters_after`. `vocabulary`: rows that the adapter's embeddings have, where training changed
    their number: the base model has to be resized before it takes the adapter. `provenance`: whether the adapter is
    known to be of the checkpoint. `loaded_by`: the class of transformers that takes the adapter, with `labels` where
    it is a classifier. `served`: which engines take it where many adapters are served at once; a merged model is none.
    `notes`: what else its owner should know, a sentence each.
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
    served: tuple[Served, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainedOn:
    """The checkpoint: `folder` has its config.json, `origins` the values that parameters had before training."""

    folder: Path
    origins: Origins


def notes_on(adapter: Adapter, method: AdapterMethod) -> Iterator[str]:
    """Reads every tensor: RequestFault naming one that is not finite."""
    tensors, places = adapter.tensors, adapter.places
    if method.on_weights:
        yield (
            f"What {method.title} does depends on the weights it was trained on ({method.on_weights}), and the base "
            "model's are others: it is carried over all the same, and --strict would refuse it."
        )
    idle, adapted = sorted(method.idle(tensors.finite())), tensors.adapted()
    if len(idle) == len(adapted):
        yield (
            f"This adapter is not trained: every update in it is zero ({method.idle_as}), and adds nothing to the base "
            "model."
        )
    elif idle:
        yield f"{len(idle)} of {len(adapted)} adapted modules have no update ({method.idle_as}), {idle[0]} among them."
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


def notes_on_wholes(adapter: Adapter) -> Iterator[str]:
    """Of parameters that were recovered as differences."""
    own = [] if adapter.places is None else adapter.places.of_classifiers(adapter.tensors.names)
    wholes = [name for name in adapter.tensors.wholes if name not in own]
    if wholes:
        first = adapter.tensors.naming.parameter_of(wholes[0])
        yield (
            f"{len(wholes)} tensors are whole parameters ({first}): what training changed of them was added to the "
            "base model's."
        )


def notes_on_masking(adapter: Path) -> Iterator[str]:
    if not (adapter / MARK_FILE).is_file():
        yield (
            "The adapter does not say that its update was masked in training (mask_adapter; older versions did not "
            "write it): it is masked now, and what it did through pruned weights is lost."
        )

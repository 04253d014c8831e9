"""A fine-tuned copy of a checkpoint beside the checkpoint itself: what differs, one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot, prod
from pathlib import Path

import torch
from torch import Tensor

from publisher.checkpoint.compression import expand
from publisher.checkpoint.model_weights import QUANT_STATE, ModelWeights
from publisher.checkpoint.provenance import Tie
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.as_changes import scattered
from publisher.checkpoint.recovery.folder import CONFIG as ADAPTER_CONFIG
from publisher.checkpoint.recovery.whole_parameters import trained_difference
from publisher.errors import PublisherError, RequestFault
from publisher.manifest import manifest as manifests
from publisher.manifest.manifest import Manifest
from publisher.weights.folder import StoredWeights

#: A copy whose weights are further from the checkpoint's than this share of their norm did not start there.
_FAR = 0.5
_WAY_OUT = "Name the checkpoint that the copy was trained from"
#: name of a tensor → the norm of what training changed of it
Moved = Mapping[str, float]


def refuse_no_copy(tuned: Path, manifest: Manifest, *, force: bool) -> None:
    """RequestFault for a folder that is an adapter, or says itself that it is of another checkpoint."""
    if (tuned / ADAPTER_CONFIG).is_file():
        raise RequestFault(
            f"{tuned} is an adapter, no model.", way_out="Recover it without --from-merged, or merge it before."
        )
    if force or not (tuned / manifests.FILE_NAME).is_file():
        return
    stated, own = Tie.of(Manifest.read(tuned)), Tie.of(manifest)
    if stated is not None and own is not None and stated.masks != own.masks:
        raise RequestFault(
            f"{tuned} has the {manifests.FILE_NAME} of checkpoint {stated.checkpoint[:12]}, whose masks are others "
            f"than those of checkpoint {own.checkpoint[:12]}.",
            way_out=f"{_WAY_OUT}; --force takes it all the same.",
        )


@dataclass(frozen=True)
class TunedCopy:
    """`tuned`: the copy's weights; `own`: the checkpoint's, dequantized from 4 bits where they are stored so."""

    tuned: StoredWeights
    own: ModelWeights
    masks: PruningMasks

    def difference(self, name: str) -> Tensor:
        """Of the checkpoint's shape, in fp32 or better: zero where the copy has what loading makes of the checkpoint,
        and where single weights were pruned."""
        saved, own = self.tuned.read(name), self._own(name)
        if saved.shape != own.shape:
            shapes = f"{tuple(saved.shape)} in {self.tuned.folder}, and {tuple(own.shape)} in the checkpoint"
            raise RequestFault(
                f"{name} has shape {shapes}.",
                way_out=f"{_WAY_OUT}, with the vocabulary that it has.",
            )
        if not torch.isfinite(saved).all():
            raise RequestFault(f"{name} of {self.tuned.folder} holds NaN or infinity: training diverged.")
        change, mask = trained_difference(saved, own), self.masks.mask_of(name)
        return change if mask is None else change.masked_fill_(~mask, 0)

    def wide(self, name: str) -> Tensor:
        """In the base model's shape."""
        return scattered(name, self.difference(name), self.masks)

    def moved(self, *, force: bool) -> Moved:
        """What differs, by name. Reads everything, so that all is refused before anything is written."""
        self._refuse_4_bits()
        self._refuse_missing()
        found, size = {}, 0.0
        for name in sorted(self.tuned.entries):
            norm = float(torch.linalg.vector_norm(self.difference(name), dtype=torch.float64))
            size = hypot(size, float(torch.linalg.vector_norm(self._own(name), dtype=torch.float64)))
            if norm:
                found[name] = norm
        if not found:
            raise RequestFault(f"{self.tuned.folder} is the checkpoint, weight by weight: nothing was trained.")
        share = hypot(*found.values()) / size
        if share > _FAR and not force:
            raise RequestFault(
                f"{self.tuned.folder} is {share:.0%} of the weights' norm away from the checkpoint: it was "
                "trained from another model.",
                way_out=f"{_WAY_OUT}; --force takes it all the same.",
            )
        return found

    def is_cut(self, name: str) -> bool:
        found = self.masks.parameter(name)
        return found is not None and found.cut is not None

    @property
    def parameters(self) -> int:
        return sum(prod(entry.shape) for entry in self.tuned.entries.values())

    def _own(self, name: str) -> Tensor:
        try:
            own = self.own.read(name)
        except PublisherError as error:
            raise RequestFault(
                f"{self.tuned.folder} has {name}, and its value in the checkpoint cannot be had: {error.message}",
                way_out=_WAY_OUT + ".",
            ) from error
        mask = self.masks.mask_of(name)
        return expand(own, mask) if mask is not None and own.ndim == 1 else own

    def _refuse_4_bits(self) -> None:
        packed = next((name for name in self.tuned.entries if QUANT_STATE in name), None)
        if packed:
            raise RequestFault(
                f"{self.tuned.folder} stores its weights in 4 bits ({packed}), whose rounding would be taken for "
                "training.",
                way_out="Save the copy in bf16 or fp32 (model.dequantize() before save_pretrained).",
            )

    def _refuse_missing(self) -> None:
        missing = [name for name in self.own.names() if name not in self.tuned.entries and not _is_beside(name)]
        if missing:
            raise RequestFault(
                f"{self.tuned.folder} lacks {len(missing)} tensors of the checkpoint, {missing[0]} among them.",
                way_out="Save the whole model.",
            )


def _is_beside(name: str) -> bool:
    """Whether it is what stands beside a weight that is stored in 4 bits or compressed."""
    return not name.endswith((".weight", ".bias"))

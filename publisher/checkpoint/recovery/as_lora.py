"""A realised change (realised.py) as a LoRA for the base model: its largest singular values, put back at kept places.

The decomposition is made in the checkpoint's shapes, which are small, and the factors are put back as those of any LoRA
are: what is left out is exactly what the best matrix of that rank leaves out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import pad

from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.changes import Changes, ModuleChange, Together
from publisher.checkpoint.recovery.method import Update
from publisher.checkpoint.recovery.methods.lora_placement import B_BIAS, A, B, recover_tensor, recovered_shape
from publisher.checkpoint.recovery.naming import PEFT_PREFIX
from publisher.checkpoint.recovery.truncation import CAP, Truncation, truncated
from publisher.errors import RequestFault
from publisher.weights.writing import Entry

#: of the adapter's config what the LoRA has as it is
_KEPT = (
    "task_type", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save",
    "trainable_token_indices", "auto_mapping", "base_model_name_or_path", "inference_mode",
)  # fmt: skip


def as_lora(adapter: Adapter, masks: PruningMasks, together: Together) -> Update:
    """Of rank `adapter.rank`, or of the lowest that is near to the change in every matrix, up to CAP."""
    from publisher.checkpoint.recovery.realised import RealisedChanges  # which asks PEFT

    config = {key: adapter.config[key] for key in _KEPT if key in adapter.config}
    return lora_of(RealisedChanges(adapter, masks, together), config, masks, adapter.rank)


def lora_of(changes: Changes, config: Mapping[str, Any], masks: PruningMasks, rank: int | None) -> Update:
    """Whatever made the changes; `config`: what adapter_config.json has beside ranks."""
    _refuse_rank(rank)
    factors = Factors.of(changes, rank, masks)
    entries = [
        Entry(name, "F32", recovered_shape(name, shape, masks)) for name, shape in factors.shapes(factors.rank).items()
    ]
    said = {"peft_type": "LORA", "r": factors.rank, "lora_alpha": factors.rank, "lora_bias": factors.biased}
    return Update(
        entries,
        lambda name: recover_tensor(name, factors.read(name), masks),
        {**config, **said},
        tuple(factors.account()),
        factors.left_out,
    )


@dataclass(frozen=True)
class Kept:
    """Of one module: ranks and norms (Truncation), and whether its bias changed."""

    shape: tuple[int, int]
    rank: int
    norm: float
    left_out: float
    biased: bool


class Factors:
    """B and A of every module, in files of a temporary folder that goes with the object: those of a large model take
    gigabytes."""

    def __init__(self, asked: int | None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="loram-factors-")
        self._asked = asked
        self.modules: dict[str, Kept] = {}

    @classmethod
    def of(cls, changes: Changes, rank: int | None, masks: PruningMasks) -> Factors:
        factors = cls(rank)
        for module in changes.targets:
            factors._keep(module, _masked(changes.of(module), masks.mask_of(f"{module}.weight")))
        return factors

    @property
    def rank(self) -> int:
        """Of all modules, which engines that serve LoRAs ask for."""
        return self._asked or max(kept.rank for kept in self.modules.values())

    @property
    def biased(self) -> bool:
        return any(kept.biased for kept in self.modules.values())

    @property
    def left_out(self) -> float:
        """Share of the change's norm, over all modules."""
        return _share(
            sqrt(sum(kept.left_out**2 for kept in self.modules.values())),
            sqrt(sum(kept.norm**2 for kept in self.modules.values())),
        )

    def shapes(self, rank: int) -> dict[str, tuple[int, ...]]:
        """PEFT's names → shapes in the checkpoint."""
        found: dict[str, tuple[int, ...]] = {}
        for module, kept in self.modules.items():
            found[f"{PEFT_PREFIX}{module}{A}"] = (rank, kept.shape[1])
            found[f"{PEFT_PREFIX}{module}{B}"] = (kept.shape[0], rank)
            if self.biased:
                found[f"{PEFT_PREFIX}{module}{B_BIAS}"] = (kept.shape[0],)
        return found

    def read(self, name: str) -> Tensor:
        """Filled up with zeros to the common rank."""
        part = next(part for part in (A, B_BIAS, B) if name.endswith(part))
        factor = self._file(name.removeprefix(PEFT_PREFIX).removesuffix(part))[part]
        if part == B_BIAS:
            return factor
        return pad(factor, (0, 0, 0, self.rank - len(factor)) if part == A else (0, self.rank - factor.shape[1]))

    def account(self) -> Iterator[str]:
        """A sentence each, for the report."""
        worst = max(self.modules, key=lambda name: _share(self.modules[name].left_out, self.modules[name].norm))
        most = _share(self.modules[worst].left_out, self.modules[worst].norm)
        why = "" if self._asked else f", the lowest that is near the change of every matrix, {CAP} at most"
        yield (
            f"The update is a LoRA of rank {self.rank}{why}: it leaves out {_percent(self.left_out)} of the change's "
            f"norm (at most {_percent(most)}, in {worst}), which is the least that this rank can."
        )
        if self.left_out > WORTH_A_WARNING:
            yield (
                f"{_percent(self.left_out)} of what was trained is lost in this LoRA: a higher --rank keeps more, "
                "--merge all of it."
            )
        idle = [name for name, kept in self.modules.items() if not kept.norm]
        if idle:
            yield f"{len(idle)} of {len(self.modules)} adapted modules have no update, {idle[0]} among them."

    def _keep(self, module: str, change: ModuleChange) -> None:
        found = truncated(change.weight, self._asked)
        bias = torch.zeros(len(change.weight)) if change.bias is None else change.bias.float()
        self.modules[module] = _kept(change, found, bool(bias.any()))
        parts = {A: found.a.float(), B: found.b.float(), B_BIAS: bias}
        save_file(parts, self._path(module))

    def _file(self, module: str) -> Mapping[str, Tensor]:
        parts: dict[str, Tensor] = load_file(self._path(module))
        return parts

    def _path(self, module: str) -> Path:
        return Path(self._folder.name) / f"{module}.safetensors"


#: Share of a change's norm from which its loss is said in a sentence of its own.
WORTH_A_WARNING = 0.01


def _kept(change: ModuleChange, found: Truncation, biased: bool) -> Kept:
    out, columns = change.weight.shape
    return Kept((out, columns), found.rank, found.norm, found.left_out, biased)


def _masked(change: ModuleChange, mask: Tensor | None) -> ModuleChange:
    return change if mask is None else ModuleChange(change.weight * mask, change.bias)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _percent(share: float) -> str:
    return f"{share:.2%}" if share >= 1e-4 else f"{share * 100:.1g}%"


def _refuse_rank(rank: int | None) -> None:
    if rank is not None and rank < 1:
        raise RequestFault(
            f"A LoRA has no rank {rank}.", field="rank", way_out="Give a positive whole number, such as 64."
        )

"""What an adapter does to linear layers, whatever worked it out, and which modules have to be seen together for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from torch import Tensor

from publisher.architecture.structure import Shape


class Together(StrEnum):
    """Which modules PEFT has to see at once to make one module's part of an adapter."""

    ALONE = "alone"
    #: what modules share depends on how many there are and how wide they are
    SHAPES = "shapes"
    #: … and on all their weights
    WEIGHTS = "weights"


@dataclass(frozen=True)
class Target:
    """A linear layer of the checkpoint that the adapter adapts: (out, in), and whether it has a bias."""

    shape: Shape
    biased: bool


@dataclass(frozen=True)
class ModuleChange:
    """`weight` (out, in) and `bias` (out,), of the checkpoint's shapes, in fp64; no bias: the module has none."""

    weight: Tensor
    bias: Tensor | None


class Changes(Protocol):
    """Of linear layers, by name in the model, whatever made them."""

    @property
    def targets(self) -> Mapping[str, Target]: ...

    def of(self, module: str) -> ModuleChange: ...

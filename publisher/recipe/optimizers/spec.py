"""What an optimizer says of itself, once: recipe, plan, capacity and the align stage read it here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

#: of Adam and what is built on it
BETAS = (0.9, 0.95)

Shape = tuple[int, ...]


class Optimizer(StrEnum):
    """What trains in alignment. Each is declared in the file of its name beside this one."""

    ADAMW = "adamw"
    ADAMW_8BIT = "adamw_8bit"
    GALORE_ADAMW = "galore_adamw"
    GALORE_ADAMW_8BIT = "galore_adamw_8bit"
    APOLLO_ADAMW = "apollo_adamw"
    MUON = "muon"
    ADAFACTOR = "adafactor"
    GRADNORMLORP = "gradnormlorp"
    LOTUS = "lotus"


@dataclass(frozen=True)
class Package:
    """What an installation may lack: the `module` that is imported, and what pip calls it."""

    module: str
    pip: str


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """An optimizer. `words`: what it is and where it comes from, for the recipe's reference.

    `made_by`: `module:name` of (parameters, lr=, **options) → torch.optim.Optimizer; with `has_rank` it gets `rank=`
    too, that of the gradients' projections. `beside`: it trains the layers' matrices alone, and that optimizer what
    else there is; None: it trains all.

    `state_bytes`: (shape of a parameter that it trains, rank) → bytes of what it keeps for it. `state_objects`: class →
    module of objects that hold tensors in its state; no others are ever made from a saved state. `package`: what is not
    installed with a worker as a matter of course. `several_devices`: whether it steps weights of which each device
    holds a part; one that looks at whole matrices, or keeps states of other shapes, cannot.
    """

    name: Optimizer
    words: str
    made_by: str
    options: Mapping[str, object]
    state_bytes: Callable[[Shape, int], float]
    has_rank: bool = False
    beside: Optimizer | None = None
    package: Package | None = None
    several_devices: bool = False
    state_objects: Mapping[str, str] = field(default_factory=dict)

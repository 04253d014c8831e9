"""What decides what a training learns, as `publisher train` has it in options."""

from __future__ import annotations

import math
from dataclasses import dataclass

from publisher.errors import RequestFault


@dataclass(frozen=True)
class Settings:
    """What decides what is learned. `targets`: names of linear layers, all without any; `length`: tokens of a sequence;
    `eval_split`: share of the examples that is held out."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ()
    epochs: float = 1.0
    steps: int | None = None
    batch: int = 4
    accumulate: int = 4
    length: int = 512
    learning_rate: float = 2e-4
    packing: bool = False
    gradient_checkpointing: bool = True
    eval_split: float = 0.1
    seed: int = 0


def refuse_no_numbers(settings: Settings) -> None:
    """What TRL fails of in words of its own, after minutes, or takes: with an alpha of 0 nothing is ever learned."""
    for name in ("alpha", "learning_rate", "epochs"):
        value = getattr(settings, name)
        if not (math.isfinite(value) and value > 0):
            raise RequestFault(
                f"{value} is no {name.replace('_', ' ')}.",
                field=name,
                way_out=f"--{name.replace('_', '-')}: a number above 0.",
            )
    if not 0 <= settings.seed < 2**32:
        raise RequestFault(f"{settings.seed} is no seed.", field="seed", way_out="--seed: from 0 to 4294967295.")

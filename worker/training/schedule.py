"""How long and how fast: steps, batches and the learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """`batch_sequences` sequences in each of `steps` optimizer steps; `peak` is the highest learning rate."""

    steps: int
    batch_sequences: int
    peak: float
    warmup_fraction: float

    def learning_rate(self, step: int) -> float:
        """Linear from peak / warm-up steps to peak, then half a cosine towards zero. `step` counts from 0."""
        warmup = round(self.steps * self.warmup_fraction)
        if step < warmup:
            return self.peak * (step + 1) / warmup
        share = (step - warmup) / max(1, self.steps - warmup)
        return self.peak * (1 + math.cos(math.pi * share)) / 2

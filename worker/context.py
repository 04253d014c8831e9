"""What a stage may say to the outside while it runs; the same for a job, the command line and a test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


class StageContext(Protocol):
    """Calls are cheap enough for every batch of every loop; whoever listens thins them out."""

    def check(self) -> None:
        """Raise JobCancelled, JobPaused or LeaseLost if the work is not wanted any more, or not now."""

    def progress(self, done: float, total: float, unit: str) -> None:
        """`done` of `total` `unit` (tokens, bytes, tensors, …) of this stage. Checks, too."""

    def metric(self, name: str, step: int, value: float) -> None:
        """One point of a series: `loss`, `learning_rate`, `tokens_per_second`, `perplexity`, …"""

    def log(self, message: str) -> None:
        """A sentence for people."""


@dataclass
class RecordingContext:
    """Keeps everything in lists; for tests and for use as a library."""

    metrics: list[tuple[str, int, float]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    fraction: float = 0.0

    def check(self) -> None:
        return None

    def progress(self, done: float, total: float, unit: str) -> None:
        self.fraction = done / total if total else 1.0
        self.check()

    def metric(self, name: str, step: int, value: float) -> None:
        self.metrics.append((name, step, value))

    def log(self, message: str) -> None:
        self.messages.append(message)

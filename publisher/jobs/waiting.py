"""What a queued job waits for besides its turn. Waiting is not a try: it costs no attempt and holds no worker."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class WaitKind(StrEnum):
    """What is not there yet."""

    HUB = "hub"
    CREDENTIAL = "credential"
    WORKER = "worker"
    DISK = "disk"
    QUOTA = "quota"

    @property
    def words(self) -> str:
        """As in "waiting for …"."""
        return _WORDS[self]


_WORDS = {
    WaitKind.HUB: "the Hub",
    WaitKind.CREDENTIAL: "a credential",
    WaitKind.WORKER: "a worker that fits",
    WaitKind.DISK: "disk space",
    WaitKind.QUOTA: "another of its tenant's jobs to end",
}

#: seconds before something is looked for again: twice as long each time, from the first to the last
SHORTEST_PAUSE, LONGEST_PAUSE = 10.0, 300.0


def pause(waited: float) -> float:
    """Seconds until the next look, of something that was waited for `waited` seconds: as long again, within bounds."""
    return min(max(waited, SHORTEST_PAUSE), LONGEST_PAUSE)


def span(seconds: float) -> str:
    """`42 s`, `12 min`, `6.0 h`"""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Waiting:
    """`message` says what is missing ("the Hub answered 503 for …"), `way_out` what a person can do to end it sooner,
    `stage` where the job goes on."""

    kind: WaitKind
    message: str
    stage: str | None = None
    way_out: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "kind": self.kind.value}

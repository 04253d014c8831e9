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


@dataclass(frozen=True)
class Waiting:
    """`message` says what is missing ("the Hub answered 503 for …"), `way_out` what a person can do to end it sooner,
    `stage` where the job goes on, `since` (seconds since 1970) when that was first missing, where the job's own
    `waiting_since` does not say so."""

    kind: WaitKind
    message: str
    stage: str | None = None
    way_out: str | None = None
    since: float | None = None

    def as_json(self) -> dict[str, Any]:
        told = {**asdict(self), "kind": self.kind.value}
        return told if self.since is not None else {name: told[name] for name in told if name != "since"}

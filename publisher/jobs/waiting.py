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

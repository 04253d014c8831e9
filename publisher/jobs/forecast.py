"""When a queued job will start and a running one end, reckoned from how long stages take; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

#: seconds that a stage takes if it is made anew, by its name
StageSeconds = Mapping[str, float]


@dataclass(frozen=True)
class Turn:
    """A queued job: the ids of the workers that it is for, and the seconds that it will take; None: nobody knows."""

    workers: frozenset[str]
    seconds: float | None


def learn(finished: Iterable[Mapping[str, Any]]) -> StageSeconds:
    """The median of a stage over those earlier jobs of the same kind (their `stages`) that made it."""
    seen: dict[str, list[float]] = {}
    for stages in finished:
        for stage, said in stages.items():
            if said.get("state") == "finished" and said.get("seconds") is not None:
                seen.setdefault(stage, []).append(float(said["seconds"]))
    return {stage: median(seconds) for stage, seconds in seen.items()}


def remaining(expected: StageSeconds, stages: Mapping[str, Any], running_for: float) -> float:
    """Seconds that a job still takes which runs for `running_for` seconds and says `stages` of itself.

    A stage that takes longer than expected is taken to be about to end.
    """
    over = {stage: said for stage, said in stages.items() if said.get("state") in {"finished", "reused"}}
    spent = running_for - sum(said.get("seconds") or 0.0 for said in over.values() if said["state"] == "finished")
    left = sum(seconds for stage, seconds in expected.items() if stage not in over)
    current = next((stage for stage, said in stages.items() if said.get("state") == "started"), None)
    return max(0.0, left - min(max(0.0, spent), expected.get(current or "", 0.0)))


def start_of(mine: frozenset[str], ahead: Sequence[Turn], free_in: Mapping[str, float | None]) -> float | None:
    """Seconds until a job for the workers `mine` starts: those `ahead` of it go one by one to the first of their
    workers that is free. `free_in`: seconds until each worker is; None, and so is the answer, where nobody knows."""
    free = dict(free_in)
    for turn in ahead:
        place = _first(turn.workers, free)
        if place is None:
            continue
        begins = free[place]
        free[place] = None if begins is None or turn.seconds is None else begins + turn.seconds
    place = _first(mine, free)
    return None if place is None else free[place]


def _first(workers: frozenset[str], free: Mapping[str, float | None]) -> str | None:
    """The one that is free first. While one is known to be, those of which nothing is known come later."""
    able = sorted(worker for worker in workers if worker in free)
    known = {worker: seconds for worker in able if (seconds := free[worker]) is not None}
    return min(known, key=lambda worker: known[worker]) if known else next(iter(able), None)

"""When a queued job will start and a running one end, reckoned from how long stages take; pure.

Of every stage an interval is kept, not a number: wide where only a plan says how long it takes, narrower where earlier
jobs took it, and for the running stage narrower still as its own progress shows its speed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import median
from typing import Any

#: factor each way within which a plan's seconds are taken to be true: it knows products of matrices, not what else a
#: stage does or who else computes. Stages of twelve small jobs on two busy cores took 0.6 to 4 times as long, but short
#: ones most: beside OVERHEAD this factor holds them all
PLANNED = 2.5
#: the same of seconds that one or two earlier jobs took, who say little of how much they differ
FEW_EARLIER = 1.8
#: earlier jobs from which their own spread counts, and the least that is made of it
ENOUGH, LEAST = 3, 1.3
#: seconds that a stage takes beside what its plan counts, likely and at most: a process that reads its libraries, a
#: Hub that answers
OVERHEAD, MOST_OVERHEAD = 2.0, 20.0
#: share of a phase after which its own speed is all that counts
MEASURED = 0.25
#: share of its own time that a stage may take on after its last report: it writes what it made
WRITING = 0.03
#: factor each way within which a stage goes on as fast as it went so far: other work comes and goes on its machine
STEADY = 1.3
#: the same of a stage that counts unlike things together, near its beginning
UNLIKE = 3.0
#: stages whose progress adds up what takes unlike times, as windows of text and steps of training
UNEVEN = frozenset({"evaluate"})
#: stages whose progress counts one thing after another, and which comes last
LAST_UNIT = {"fetch": "bytes hashed", "align": "tokens", "package": "bytes hashed", "publish": "bytes read back"}


@dataclass(frozen=True)
class Span:
    """Seconds: `likely`, and from `low` to `high`."""

    low: float
    likely: float
    high: float

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def __mul__(self, factor: float) -> Span:
        return Span(self.low * factor, self.likely * factor, self.high * factor)

    def towards(self, other: Span, share: float) -> Span:
        """This one at 0, `other` at 1, and wide enough for what `other` holds likely."""
        between = self * (1 - share) + other * share
        return Span(min(between.low, other.likely), between.likely, max(between.high, other.likely))


#: what a stage takes if it is made anew, by its name
StageSpans = Mapping[str, Span]
NOTHING = Span(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Turn:
    """A queued job: the ids of the workers that it is for, and the seconds that it will take; None: nobody knows."""

    workers: frozenset[str]
    seconds: float | None


@dataclass(frozen=True)
class Phase:
    """What the running stage has told of itself in its present unit: from its first report to its last, `first_at` and
    `at` in seconds since the stage began."""

    unit: str
    first_done: float
    first_at: float
    done: float
    total: float
    at: float


@dataclass(frozen=True)
class Left:
    """What is left of a running job. `share`: of all its time, how much has passed, from 0 to 1."""

    span: Span
    share: float


def planned(seconds: Mapping[str, float]) -> StageSpans:
    """A plan's seconds, as wide as plans are wrong."""
    return {
        stage: Span(likely / PLANNED, likely + OVERHEAD, likely * PLANNED + MOST_OVERHEAD)
        for stage, likely in seconds.items()
    }


def learn(finished: Iterable[Mapping[str, Any]]) -> StageSpans:
    """Of each stage over those earlier jobs of the same kind (their `stages`) that made it: the median, as wide as they
    differ."""
    seen: dict[str, list[float]] = {}
    for stages in finished:
        for stage, said in stages.items():
            if said.get("state") == "finished" and said.get("seconds") is not None:
                seen.setdefault(stage, []).append(float(said["seconds"]))
    return {stage: _learnt(seconds) for stage, seconds in seen.items()}


def _learnt(seconds: Sequence[float]) -> Span:
    middle, factor = median(seconds), FEW_EARLIER
    if len(seconds) >= ENOUGH:
        logs = [log(max(each, 0.1)) for each in seconds]
        mean = sum(logs) / len(logs)
        spread = sqrt(sum((each - mean) ** 2 for each in logs) / (len(logs) - 1))
        # two standard deviations of the next one; that of the mean itself is within the least factor
        factor = max(LEAST, exp(2 * spread))
    # short stages differ by a second or so, whatever their share is
    return Span(max(0.0, middle / factor - 0.5), middle, middle * factor + 0.5)


def of_stages(expected: StageSpans, stages: Mapping[str, Any]) -> Span:
    """Of all that is not over yet, as if none of it had begun."""
    return sum((span for stage, span in expected.items() if not is_over(stages.get(stage))), NOTHING)


def left_of(
    expected: StageSpans,
    stages: Mapping[str, Any],
    running_for: float,
    *,
    spent: float | None = None,
    phase: Phase | None = None,
) -> Left | None:
    """Of a job that runs for `running_for` seconds and says `stages` of itself; None where nothing is known.

    `spent`: seconds since the running stage began, reckoned if left out; `phase`: what it has told. A stage that takes
    longer than was expected is taken to end soon, but never at once: as long as it runs there is something left.
    """
    current = next((stage for stage, said in stages.items() if said.get("state") == "started"), None)
    if not expected:
        return None
    later = {stage: span for stage, span in expected.items() if stage != current}
    span = of_stages(later, stages)
    if current is not None:
        spent = max(0.0, running_for - _made(stages)) if spent is None else spent
        progress = None if phase is None else Speed.of(current, phase, spent)
        span += left_of_stage(expected.get(current), spent, progress)
    span = Span(max(span.low, 0.0), max(span.likely, 0.5), max(span.high, 1.0))
    return Left(span, running_for / (running_for + span.likely))


@dataclass(frozen=True)
class Speed:
    """What a stage's own progress says is left of its present phase, how much that counts, from 0 to 1, and whether
    the stage ends with this phase."""

    left: Span
    weight: float
    is_last: bool

    @classmethod
    def of(cls, stage: str, phase: Phase, spent: float) -> Speed | None:
        """`spent`: seconds since the stage began. At the speed since the first report; None before a second one."""
        done, passed = phase.done - phase.first_done, phase.at - phase.first_at
        if done <= 0 or passed <= 0 or not phase.total:
            return None
        told, known = (phase.total - phase.done) * passed / done, done / phase.total
        # since the last report it went on, as it must be supposed, but no further than to the next
        left = max(told - max(0.0, spent - phase.at), 0.0)
        weight, factor = min(1.0, known / MEASURED), STEADY + 0.6 * max(0.0, 1 - known / MEASURED)
        if stage in UNEVEN:
            weight, factor = known, STEADY + (UNLIKE - STEADY) * (1 - known) ** 2
        writing = WRITING * spent + 0.5
        span = Span(left / factor, left + writing / 4, max(told, left) * factor + writing)
        return cls(span, weight, LAST_UNIT.get(stage, phase.unit) == phase.unit)


def left_of_stage(expected: Span | None, spent: float, speed: Speed | None = None) -> Span:
    """Of a stage that runs for `spent` seconds, whose present phase has certainly still to end."""
    by_plan = _unspent(expected, spent) if expected else None
    if speed is None:
        return by_plan or Span(0.0, spent * 0.1, spent)
    if by_plan is None:
        return speed.left
    if speed.is_last:
        return by_plan.towards(speed.left, speed.weight)
    # another phase follows, of which this one's speed says nothing
    floor = speed.left.low * speed.weight
    high = max(by_plan.high, speed.left.high * speed.weight)
    return Span(max(by_plan.low, floor), max(by_plan.likely, floor), high)


def _unspent(expected: Span, spent: float) -> Span:
    over = max(0.0, spent - expected.likely)
    low, likely = max(0.0, expected.low - spent), max(expected.likely - spent, 0.1 * expected.likely + 0.1 * over)
    return Span(low, likely, max(expected.high - spent, likely + 0.5 * over))


def is_over(said: Mapping[str, Any] | None) -> bool:
    """Whether a job that says this of a stage is through with it."""
    return said is not None and said.get("state") in {"finished", "reused"}


def _made(stages: Mapping[str, Any]) -> float:
    """Seconds of the stages that were made in this try."""
    return sum(said.get("seconds") or 0.0 for said in stages.values() if said.get("state") == "finished")


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

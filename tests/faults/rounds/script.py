"""What happens in a round, drawn from its seed alone: jobs, how the Hub misbehaves, and what is done to whom, when.

The script is the same for a seed on every machine. When its points are reached is up to processes and their timing, so
a seed that broke once need not break again: it is the first thing to try.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TypeVar

_T = TypeVar("_T")


class Form(StrEnum):
    """Of the installation: PostgreSQL and Redis, or SQLite and folders."""

    DISTRIBUTED = "distributed"
    EMBEDDED = "embedded"


class HubCall(StrEnum):
    """A request to the Hub, by what it is for."""

    INFO = "info"
    CREATE = "create"
    PREUPLOAD = "preupload"
    BATCH = "batch"
    UPLOAD = "upload"
    COMMIT = "commit"
    READ = "read"
    OTHER = "other"


class Misbehaviour(StrEnum):
    """What the Hub, or the network before it, does to a request."""

    TOO_MANY = "429"
    ERROR = "500"
    UNAVAILABLE = "503"
    SLOW = "slow"
    CUT_BEFORE = "cut before"
    CUT_DURING = "cut during"
    ANSWER_LOST = "answer lost"
    ANSWER_HALF = "half an answer"
    ANSWER_LATE = "answer late"
    PASSED_LATE = "passed on late"


class Act(StrEnum):
    """What is done to the installation, or asked of it."""

    CANCEL = "cancel"
    KILL_WORKER = "kill -9 worker"
    KILL_PROCESS = "kill -9 process"
    KILL_API = "kill -9 api"
    STOP_WORKER = "stop worker and process"
    STOP_PROCESS = "stop process"
    STOP_API = "stop api"
    WIPE_BROKER = "wipe broker"
    STOP_BROKER = "stop broker"
    STOP_DATABASE = "stop database"
    DELIVER_TWICE = "deliver twice"
    FILL_DISK = "fill disk"


#: an embedded installation's is a folder; its database, a file, can be held
_OF_SERVERS = {Act.STOP_BROKER}
#: these cost a start of Python, and of torch for a worker: seconds
_DEAR = {Act.KILL_WORKER, Act.KILL_API}

STAGES = ("fetch", "prune", "align", "package", "publish")
#: of `before` the Hub knows nothing yet; at `after` it has answered and nobody knows
MOMENTS = ("before", "after")
EVENT_POINTS = ("state:queued", "state:running", *(f"stage:{stage}" for stage in STAGES))
HUB_POINTS = tuple(f"hub:{call}:{moment}" for call in HubCall if call is not HubCall.OTHER for moment in MOMENTS)
POINTS = EVENT_POINTS + HUB_POINTS


@dataclass(frozen=True)
class JobPlan:
    """`aligns`: with a stage of its own, which takes seconds; otherwise all but package and publish is there already.
    `retried`: once, when it was cancelled or has failed."""

    aligns: bool
    retried: bool


@dataclass(frozen=True)
class HubFault:
    """From request number `nth` (from 0) of `call` for job number `job` on, `times` requests in a row. `seconds` is how
    long what is slow or late takes."""

    kind: Misbehaviour
    job: int
    call: HubCall
    nth: int
    times: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind} x{self.times} at {self.call} {self.nth} of job {self.job}"


@dataclass(frozen=True)
class PlannedAct:
    """`seconds` after it began it is undone: what was stopped goes on, what was killed starts again."""

    kind: Act
    job: int
    point: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind} at {self.point} of job {self.job}"


@dataclass(frozen=True)
class Round:
    seed: int
    jobs: tuple[JobPlan, ...]
    hub_faults: tuple[HubFault, ...]
    acts: tuple[PlannedAct, ...]

    @classmethod
    def of(cls, seed: int, form: Form, lease_seconds: float) -> Round:
        chance = Random(f"{form} {seed}")
        number = chance.choice((1, 1, 1, 2, 2, 3))
        jobs = tuple(JobPlan(aligns=chance.random() < 0.4, retried=chance.random() < 0.4) for _ in range(number))
        draw = _Draw(chance, len(jobs), form, lease_seconds)
        if chance.random() < 0.2:
            faults, acts = draw.doubtful_commit()
        else:
            faults = [draw.hub_fault() for _ in range(chance.choice((0, 1, 1, 2)))]
            acts = [draw.act(draw.kind()) for _ in range(chance.choice((0, 1, 1, 2)))]
        acts += [draw.cancel(job) for job in range(len(jobs)) if chance.random() < 0.4]
        return cls(seed, jobs, tuple(faults), tuple(acts))

    def __str__(self) -> str:
        return "; ".join(map(str, (*self.acts, *self.hub_faults))) or "nothing"


@dataclass(frozen=True)
class _Draw:
    chance: Random
    jobs: int
    form: Form
    lease_seconds: float

    def hub_fault(self) -> HubFault:
        kind, call = self._pick(tuple(Misbehaviour)), self._pick(tuple(HubCall)[:-1])
        times = 1 if kind in _BOUND_TO_ONE else self._pick((1, 1, 2, 3))
        return HubFault(kind, self._job(), call, self._pick((0, 0, 0, 1, 2)), times, self._duration())

    def kind(self) -> Act:
        kinds = [kind for kind in Act if kind is not Act.CANCEL and self._has(kind)]
        return self.chance.choices(kinds, [1 if kind in _DEAR else 2 for kind in kinds])[0]

    def act(self, kind: Act) -> PlannedAct:
        return PlannedAct(kind, self._job(), self._pick(POINTS), self._duration())

    def cancel(self, job: int) -> PlannedAct:
        return PlannedAct(Act.CANCEL, job, self._pick(POINTS), 0.0)

    def doubtful_commit(self) -> tuple[list[HubFault], list[PlannedAct]]:
        """Nobody learns in time whether the commit is there, and the job is cancelled, or its process dies."""
        job = self._job()
        kinds = (Misbehaviour.ANSWER_LOST, Misbehaviour.ANSWER_LATE, Misbehaviour.PASSED_LATE)
        faults = [HubFault(self._pick(kinds), job, HubCall.COMMIT, 0, 1, self._duration())]
        if self.chance.random() < 0.5:
            away = HubFault(Misbehaviour.UNAVAILABLE, job, HubCall.INFO, 2, self._pick((1, 2, 3)), 0.0)
            faults.append(away)
        kind = self._pick((Act.CANCEL, Act.CANCEL, Act.KILL_PROCESS, Act.STOP_WORKER))
        return faults, [PlannedAct(kind, job, f"hub:commit:{self._pick(MOMENTS)}", self._duration())]

    def _has(self, kind: Act) -> bool:
        return self.form is Form.DISTRIBUTED or kind not in _OF_SERVERS

    def _job(self) -> int:
        return self.chance.randrange(self.jobs)

    def _duration(self) -> float:
        """Shorter or longer than a lease."""
        return round(self.lease_seconds * self._pick((0.2, 0.5, 1.2, 1.5)), 2)

    def _pick(self, choices: Sequence[_T]) -> _T:
        return self.chance.choice(choices)


_BOUND_TO_ONE = {Misbehaviour.ANSWER_LATE, Misbehaviour.PASSED_LATE, Misbehaviour.SLOW}

"""Play one round: queue its jobs, do what its script says when its points are reached, wait until all is over."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from publisher.client.events import Event
from publisher.store.states import JobState
from tests.faults.installation import KEY
from tests.faults.rounds.acts import ACTS
from tests.faults.rounds.proxy import Behaviour, misbehaving
from tests.faults.rounds.recorder import Recorder, wait
from tests.faults.rounds.script import Act, HubCall, JobPlan, PlannedAct, Round
from tests.faults.rounds.site import Site

#: within which all jobs of a round are final
ROUND_SECONDS = 200.0
#: how long a request to the Hub waits for what is done at its point
_HOLD_SECONDS = 8.0


@dataclass
class PlayedJob:
    """`cancelled_at` and `retried_at` are the numbers of the events that these requests made."""

    number: int
    plan: JobPlan
    name: str
    learning_rate: float
    id: str = ""
    variant_id: str = ""
    recorder: Recorder | None = None
    retry_asked: bool = False
    retried_at: int = 0
    cancelled_at: int = 0

    @property
    def repo_id(self) -> str:
        return f"default/{self.name}"

    @property
    def events(self) -> list[Event]:
        return self.recorder.events if self.recorder else []

    @property
    def is_over(self) -> bool:
        """Final, and nothing more is to be asked of it."""
        told = [event for event in self.events if event.kind == "state"]
        if not told or not JobState(told[-1].data["state"]).finished:
            return False
        wants_retry = self.plan.retried and told[-1].data["state"] != JobState.SUCCEEDED
        return bool(told[-1].id > self.retried_at > 0) if wants_retry else not self.retry_pending

    @property
    def retry_pending(self) -> bool:
        return self.retry_asked and not self.retried_at


@dataclass
class Play:
    """`problems`: what went wrong on the way. `reached`: how many acts were done."""

    site: Site
    round: Round
    jobs: list[PlayedJob]
    behaviour: Behaviour
    pending: list[PlannedAct]
    problems: list[str] = field(default_factory=list)
    reached: int = 0
    threads: list[threading.Thread] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, site: Site, round: Round) -> Play:
        salt = secrets.token_hex(3)  # the same seed can be played twice on one site
        # a learning rate of its own makes an align stage that no other job has made
        jobs = [
            PlayedJob(
                number, plan, f"round-{round.seed}-{salt}-{number}", 1e-4 + 1e-12 * int(salt, 16) + 1e-15 * number
            )
            for number, plan in enumerate(round.jobs)
        ]
        play = cls(site, round, jobs, Behaviour(), list(round.acts))
        for fault in round.hub_faults:
            play.behaviour.faults.setdefault(jobs[fault.job].name, []).append(fault)
        play.behaviour.on_point = play._on_hub_point
        return play

    @property
    def is_over(self) -> bool:
        return all(job.is_over for job in self.jobs)

    def _is_over_soon(self) -> bool:
        self.site.hasten()
        return self.is_over

    def run(self) -> None:
        """Returns when all jobs are final, all that was begun is undone, and nobody has anything left to say."""
        with misbehaving(self.site.proxy, self.behaviour):
            for job in self.jobs:
                self._submit(job)
            if not wait(self._is_over_soon, ROUND_SECONDS):
                late = [f"{job.number} ({job.recorder and job.recorder.state})" for job in self.jobs if not job.is_over]
                self.problems.append(f"after {ROUND_SECONDS:.0f} s these jobs are not final: {', '.join(late)}")
            with self.lock:
                self.pending.clear()
            for thread in self.threads:
                thread.join(60)
            if not self.site.is_quiet():
                self.problems.append("requests to the Hub have not ended")
        self.site.mend()

    def stop(self) -> None:
        for job in self.jobs:
            if job.recorder is not None:
                job.recorder.stop()

    def _submit(self, job: PlayedJob) -> None:
        body = {
            "base_model_id": self.site.installation.base_model_id,
            "recipe": _recipe(job.learning_rate if job.plan.aligns else None),
            "publish": {"repo_id": job.repo_id},
        }
        answer = self.site.ask("POST", "/v1/variants", json=body, headers={"Idempotency-Key": job.name})
        if answer.status_code != 201:
            raise AssertionError(f"the variant was refused: {answer.status_code} {answer.text}")
        job.variant_id, job.id = answer.json()["id"], answer.json()["job"]["id"]
        chance = Random(f"{self.round.seed} {job.number}")
        job.recorder = Recorder(self.site.url, KEY, job.id, chance, lambda event: self._on_event(job, event))
        job.recorder.start()

    def _on_event(self, job: PlayedJob, event: Event) -> None:
        if event.kind == "state":
            self._reach(job, f"state:{event.data['state']}")
            lost = event.data["state"] in {JobState.CANCELLED, JobState.FAILED}
            if lost and job.plan.retried and not job.retry_asked:
                job.retry_asked = True
                self._in_thread(lambda: self._retry(job))
        elif event.kind == "stage":
            self._reach(job, f"stage:{event.data['stage']}")

    def _on_hub_point(self, name: str, call: HubCall, moment: str) -> None:
        job = next((job for job in self.jobs if job.name == name), None)
        if job is not None:
            for begun in self._reach(job, f"hub:{call}:{moment}"):
                begun.wait(_HOLD_SECONDS)

    def _reach(self, job: PlayedJob, point: str) -> list[threading.Event]:
        """Do what is planned for this point, once; each flag says when it has begun."""
        with self.lock:
            due = [act for act in self.pending if act.job == job.number and act.point == point]
            self.pending = [act for act in self.pending if act not in due]
        return [self._begin(act, job) for act in due]

    def _begin(self, act: PlannedAct, job: PlayedJob) -> threading.Event:
        begun = threading.Event()
        self._in_thread(lambda: self._perform(act, job, begun))
        return begun

    def _perform(self, act: PlannedAct, job: PlayedJob, begun: threading.Event) -> None:
        wait(lambda: bool(job.id), 30)  # its first event may come before the answer to whoever queued it
        self.reached += 1
        if act.kind is Act.CANCEL:
            self._cancel(job)
            begun.set()
            return
        undo = ACTS[act.kind](self.site, job.id)
        begun.set()
        if undo is not None:
            time.sleep(act.seconds)
            undo()

    def _cancel(self, job: PlayedJob) -> None:
        answer = self.site.ask("POST", f"/v1/jobs/{job.id}/cancel")
        if answer.is_success:
            job.cancelled_at = max(job.cancelled_at, answer.json()["event_seq"])
        elif answer.status_code != 409:
            self.problems.append(f"cancel of job {job.number} was answered {answer.status_code}: {answer.text}")

    def _retry(self, job: PlayedJob) -> None:
        """After a look at what is to be as it says: what publishes late would be taken for the second run's."""
        if job.recorder is not None and job.recorder.state is JobState.CANCELLED:
            self.site.is_quiet()
            if commits := self.site.commits(job.repo_id):
                self.problems.append(f"job {job.number} was cancelled, and the Hub has {commits}")
        answer = self.site.ask("POST", f"/v1/jobs/{job.id}/retry")
        if answer.is_success:
            job.retried_at = answer.json()["event_seq"]
        else:
            job.retried_at = job.events[-1].id  # an answer that was lost: the job is queued again already, or final
            if answer.status_code != 409:
                self.problems.append(f"retry of job {job.number} was answered {answer.status_code}: {answer.text}")

    def _in_thread(self, do: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                do()
            except Exception as error:  # noqa: BLE001 - whatever an act runs into belongs into the round's report
                self.problems.append(f"{type(error).__name__} in the round itself: {error}")

        thread = threading.Thread(target=guarded, daemon=True)
        self.threads.append(thread)
        thread.start()


def _recipe(learning_rate: float | None) -> dict[str, Any]:
    alignment = {"corpora": [{"name": "text"}], "tokens": 2560, "sequence_length": 32, "batch_tokens": 64}
    return {
        "pruning": {"criterion": "random", "ratio": 0.5, "protect_first": 1, "protect_last": 1},
        "alignment": None if learning_rate is None else alignment | {"learning_rate": learning_rate},
        "quantization": {"scheme": "none"},
    }


def report(play: Play) -> str:
    """All that is known of a round, for a log."""
    lines = [f"round {play.round.seed}: {play.round}"]
    for job in play.jobs:
        lines.append(f"--- job {job.number} {job.id} {job.plan} -> {job.repo_id}")
        lines += [f"{event.id} {event.kind} {json.dumps(event.data)}" for event in job.events]
    lines.append("--- requests to the Hub")
    for seen in play.behaviour.seen:
        lines.append(f"{seen.at:.2f} {seen.repository} {seen.call}: {seen.status} {seen.fault or ''}")
    return "\n".join(lines)

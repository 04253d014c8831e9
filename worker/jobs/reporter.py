"""What a running job tells and is told: events in batches, the lease's heartbeat, and the word to stop.

One thread does both in one transaction, so that everything is written under the fencing token. A database that
is away for a while costs nothing: events wait, until the lease would have run out.
"""

from __future__ import annotations

import contextvars
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from publisher.errors import JobCancelled, JobPaused, LeaseLost, PublisherError
from publisher.jobs import leases
from publisher.jobs.events import NewEvent
from publisher.jobs.leases import Lease
from publisher.jobs.publishing import Intent
from publisher.logs import fields
from publisher.settings import Settings
from publisher.store import tallies
from publisher.store.database import Database
from publisher.store.faults import why_away
from publisher.store.states import EventKind, JobState
from publisher.store.tallies import Observation
from publisher.tracing import spans
from worker.jobs.memory import StageMemory

logger = logging.getLogger(__name__)

#: how often events are written and a cancel is looked for; progress is thinned out to one event each
PULSE_SECONDS = 1.0
#: before the first: what a job says at once (stages that are there already, the first that starts) goes with it
FIRST_SECONDS = 0.1


class WorkerStopping(PublisherError):
    """The worker shuts down; the job goes on elsewhere."""


class JobReporter:
    """Runs from entering to leaving its context. `finish` ends the job in the transaction of its last events."""

    def __init__(self, database: Database, lease: Lease, settings: Settings) -> None:
        self.stage: str | None = None
        self._database = database
        self._lease = lease
        self._settings = settings
        self._lock = threading.Lock()
        self._events: list[NewEvent] = []
        self._observed: list[Observation] = []
        self._memory = StageMemory()
        self._end_of_span: Callable[[bool], None] | None = None
        self._progress: NewEvent | None = None
        self._stages: dict[str, Any] = {}
        self._interruption: Exception | None = None
        self._asked: JobCancelled | JobPaused | None = None
        self._committed = False
        self._over = threading.Event()
        self._renewed_at = -math.inf
        self._deadline = time.monotonic() + settings.lease_seconds
        # what it logs is about this job, too
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._run,), name="reporter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def context(self, stage: str) -> JobContext:
        """What the stage reports to; it is the current one from now on."""
        self.stage = stage
        fields.tell(stage=str(stage))
        return JobContext(self, stage)

    def on_stage(self, stage: str, state: str, seconds: float | None) -> None:
        """Show that a stage started, finished or was there already, and how long it took."""
        logger.info("stage %s %s", stage, state, extra={"seconds": seconds})
        shown: dict[str, Any] = {"state": str(state)}
        if seconds is not None:
            shown["seconds"] = round(seconds, 3)
        self._trace(str(stage), str(state))
        peaks = self._peaks(state, seconds)
        observed = _observed(stage, seconds, peaks)
        if peaks:
            shown["peak_memory"] = peaks
        with self._lock:
            self._observed += observed
            self._flush_progress()
            event = NewEvent(EventKind.STAGE, {"stage": str(stage), **shown})
            self._stages[str(stage)] = shown | {"at": event.at} if state == "started" else shown
            self._events.append(event)

    def _trace(self, stage: str, state: str) -> None:
        """A stage that was there already has taken no time: it is in the events alone."""
        if state == "started":
            self._end_of_span = spans.begin(f"stage {stage}", spans.given(), {"loram.job": self._lease.job_id})
        else:
            self._end_span(well=True)

    def _end_span(self, *, well: bool) -> None:
        end, self._end_of_span = self._end_of_span, None
        if end is not None:
            end(well)

    def _peaks(self, state: str, seconds: float | None) -> dict[str, int] | None:
        """Bytes by kind of memory of a stage that was made, once it is; None of every other."""
        if state == "started":
            self._memory.begin()
        return self._memory.end() if state == "finished" and seconds is not None else None

    def emit(self, kind: EventKind, data: dict[str, Any]) -> None:
        """One event, to be written with the next batch."""
        with self._lock:
            self._events.append(NewEvent(kind, data))

    def show_progress(self, data: dict[str, Any]) -> None:
        """Replaces progress that has not been written yet."""
        with self._lock:
            self._progress = NewEvent(EventKind.PROGRESS, data)

    def interrupt(self, reason: Exception) -> None:
        """Have the next `check` raise `reason`, unless there is one already. Safe in a signal handler: no lock."""
        self._interruption = self._interruption or reason

    def check(self) -> None:
        """Raise JobCancelled, JobPaused, LeaseLost or WorkerStopping if the work is not wanted any more, or not now.

        A cancel that comes once the commit may be at the Hub changes nothing: only the Hub knows how the job ends.
        """
        reason = self._interruption or (None if self._committed else self._asked)
        if reason is not None:
            raise reason
        # the thread may hang in a connection that is neither there nor gone
        if time.monotonic() > self._deadline:
            raise leases.lost(self._lease)

    def intend(self, intent: Intent) -> None:
        """Write down what is about to be sent. Raises JobCancelled or LeaseLost; then nothing may be sent."""
        self._committed = True  # before anybody can see it in the database, and cancel after that
        try:
            self._write(lambda session: leases.intend(session, self._lease, intent))
        except Exception:
            self._committed = False
            raise

    def withdraw(self) -> None:
        """The Hub has refused it, so that a cancel counts again. Raises LeaseLost."""
        self._write(lambda session: leases.withdraw(session, self._lease))
        self._committed = False

    def ask_the_hub(self) -> None:
        """From the start: an earlier try's commit may have been made, and a cancel waits until that is known."""
        self._committed = True

    def finish(self, end: Callable[[Session], object]) -> None:
        """Write what is left and `end` the job in one transaction; tries until the lease would have run out.

        Raises LeaseLost if it did, or if another worker has the job.
        """
        self._stop()
        self._end_span(well=False)  # one that is open still did not come to its end
        spans.flush()  # before anybody sees the end: then this process may be killed
        while not self._try_write(end):
            if time.monotonic() > self._deadline:
                raise leases.lost(self._lease)
            time.sleep(PULSE_SECONDS)

    def _write(self, change: Callable[[Session], object]) -> None:
        """`change` in a transaction of its own; tries until the lease would have run out."""
        while True:
            try:
                with self._database.write() as session:
                    change(session)
                return
            except (OperationalError, InterfaceError) as error:
                logger.warning("database is away; %s waits: %s", self._lease.job_id, error)
            if time.monotonic() > self._deadline:
                raise leases.lost(self._lease)
            time.sleep(PULSE_SECONDS)

    def _stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = FIRST_SECONDS
        while not self._over.wait(pause):
            try:
                self._pulse()
            except (LeaseLost, SQLAlchemyError) as error:
                return self.interrupt(error)
            pause = PULSE_SECONDS

    def _pulse(self) -> None:
        """Write what waits, renew if it is time, and see in any case whether somebody cancelled or paused."""
        self._memory.sample()
        now = time.monotonic()
        renewing = now - self._renewed_at >= self._settings.heartbeat_seconds
        if not self._try_write(self._renew if renewing else self._look):
            if time.monotonic() > self._deadline:
                raise leases.lost(self._lease)
        elif renewing:
            self._renewed_at, self._deadline = now, now + self._settings.lease_seconds

    def _renew(self, session: Session) -> None:
        self._obey(leases.renew(session, self._lease, self._settings.lease_seconds))

    def _look(self, session: Session) -> None:
        self._obey(leases.status(session, self._lease).state)

    def _obey(self, state: JobState) -> None:
        if state is JobState.CANCELLING:
            self._asked = JobCancelled(f"{self._lease.job_id} was cancelled.")
        elif state is JobState.PAUSING:
            self._asked = JobPaused(f"{self._lease.job_id} is to pause.")
        else:  # resumed before anybody stopped
            self._asked = None

    def _try_write(self, also: Callable[[Session], object]) -> bool:
        """The waiting events and `also`, together; False while the database is away: then they wait on."""
        batch, observed, stages = self._take()
        try:
            with self._database.write() as session:
                if batch:
                    leases.report(session, self._lease, batch, self.stage, stages)
                    tallies.observe(session, observed)
                also(session)
        except (OperationalError, InterfaceError) as error:
            logger.warning("%d events of %s wait: %s", len(batch), self._lease.job_id, why_away(error))
            with self._lock:
                self._events[:0] = batch
                self._observed[:0] = observed
            return False
        return True

    def _take(self) -> tuple[list[NewEvent], list[Observation], dict[str, Any]]:
        with self._lock:
            self._flush_progress()
            batch, self._events = self._events, []
            observed, self._observed = self._observed, []
            return batch, observed, dict(self._stages)

    def _flush_progress(self) -> None:
        if self._progress is not None:
            self._events.append(self._progress)
            self._progress = None


def _observed(stage: str, seconds: float | None, peaks: Mapping[str, int] | None) -> list[Observation]:
    """What monitoring keeps of a stage that was made."""
    if seconds is None or peaks is None:
        return []
    return [
        Observation(tallies.STAGE_SECONDS, (str(stage),), seconds),
        *(Observation(tallies.STAGE_MEMORY, (str(stage), kind), float(peak)) for kind, peak in peaks.items()),
    ]


class JobContext:
    """A stage's StageContext that reports to the job."""

    def __init__(self, reporter: JobReporter, stage: str) -> None:
        self._reporter = reporter
        self._stage = stage

    def check(self) -> None:
        self._reporter.check()

    def progress(self, done: float, total: float, unit: str) -> None:
        self._reporter.show_progress({"stage": self._stage, "done": done, "total": total, "unit": unit})
        self._reporter.check()

    def metric(self, name: str, step: int, value: float) -> None:
        # JSON has no word for infinity and for what is not a number
        point = value if math.isfinite(value) else None
        self._reporter.emit(EventKind.METRIC, {"name": name, "step": step, "value": point})

    def log(self, message: str) -> None:
        self._reporter.emit(EventKind.LOG, {"message": message, "stage": str(self._stage)})

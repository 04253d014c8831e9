"""The worker process's side of a job: start a process for it, step in when it must stop, tidy up after it.

A process per job gives GPU memory back whole, and lets the worker outlive whatever kills a job (a lack of memory,
a crash in a kernel).
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy.exc import InterfaceError, OperationalError

from publisher.errors import LeaseLost
from publisher.jobs import leases, transitions
from publisher.jobs.leases import Lease
from publisher.jobs.transitions import Blame, Failure, RetryPolicy
from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.faults import why_away
from publisher.store.states import JobState
from publisher.tracing import spans

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
#: what a job's process gets from its start to its first heartbeat: it may come from a slow disk, on a busy machine
START_SECONDS = 300.0
#: exit status of a job's process that leaves it to its worker to say what becomes of the job; 0: it has said so itself
LEFT_OPEN = 4
#: what a job gets to save its state when the worker shuts down; service managers kill after some 15 s
STOP_SECONDS = 8.0


class Supervision:
    """Of one job, from its claim to the end of its process. `stopping` says that the worker shuts down."""

    def __init__(self, database: Database, settings: Settings, lease: Lease, stopping: Callable[[], bool]) -> None:
        self._database = database
        self._settings = settings
        self._lease = lease
        self._stopping = stopping
        self._asked_at: float | None = None
        self._unheard: Lease | None = lease
        self._started_at = self._renewed_at = time.monotonic()

    def run(self) -> None:
        """Returns when the job's process is gone and the job is in a state that the next one can go on from."""
        process = start_child(self._lease)
        try:
            while not _ended(process):
                self._step_in(process)
        finally:
            kill_group(process)
        if process.returncode != 0:  # otherwise the process has ended its try, in a transaction of its own
            self._settle(process.returncode)

    def _step_in(self, process: subprocess.Popen[bytes]) -> None:
        if self._stopping() and self._asked_at is None:
            self._asked_at = time.monotonic()
            process.terminate()
        if self._is_overdue():
            kill_group(process)

    def _is_overdue(self) -> bool:
        if self._asked_at is not None:
            return time.monotonic() - self._asked_at > STOP_SECONDS
        try:
            self._keep_until_heard()
            with self._database.read() as session:
                found = leases.status(session, self._lease)
        except LeaseLost:
            # its own doing if it just finished: then there is nothing left to kill
            return True
        except (OperationalError, InterfaceError) as error:
            logger.warning("%s goes on: %s", self._lease.job_id, why_away(error))
            return False
        if found.publishing:  # only the Hub's answer ends it, and every wait for that is bounded
            return False
        return found.stopping_for is not None and found.stopping_for > self._settings.cancel_grace_seconds

    def _keep_until_heard(self) -> None:
        """Renew the lease in the stead of a process that still starts, until its own first heartbeat."""
        now = time.monotonic()
        if self._unheard is None or now - self._renewed_at < self._settings.heartbeat_seconds:
            return
        if now - self._started_at > START_SECONDS:
            self._unheard = None
            return
        with self._database.write() as session:
            self._unheard = leases.renew_unheard(session, self._unheard, self._settings.lease_seconds)
        self._renewed_at = now

    def _settle(self, status: int) -> None:
        """End the try if the process did not do so itself. If the database stays away, the reaper does it."""
        deadline = time.monotonic() + self._settings.lease_seconds
        while time.monotonic() < deadline:
            try:
                return self._end_try(status)
            except LeaseLost:
                return None
            except (OperationalError, InterfaceError) as error:
                logger.warning("outcome of %s waits: %s", self._lease.job_id, why_away(error))
                time.sleep(LOOK_SECONDS)

    def _end_try(self, status: int) -> None:
        with self._database.write() as session:
            job = leases.hold(session, self._lease)
            # a process that is to pause and does not react was killed for that
            if self._asked_at is not None or job.state is JobState.PAUSING:
                transitions.release(session, self._lease)
                return
            failure = _death(status, job.stage)
            state = transitions.fail(session, self._lease, failure, RetryPolicy.of(self._settings))
        logger.error("%s: %s It is %s now.", self._lease.job_id, failure.message, state)


def start_child(lease: Lease) -> subprocess.Popen[bytes]:
    """`python -m worker.jobs.child` in a session of its own, so that Ctrl-C at a terminal reaches only the worker."""
    command = [sys.executable, "-m", "worker.jobs.child", lease.job_id, str(lease.token), str(os.getpid())]
    # huggingface_hub decides on Xet at import and does not fall back where a Hub has none
    environment = os.environ | {"HF_HUB_DISABLE_XET": "1"}
    traceparent = spans.current()
    if traceparent is not None:
        environment[spans.VARIABLE] = traceparent
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process, if it still runs, with everything that it started, and wait for it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Waits for `LOOK_SECONDS` at most, and where the system can tell (Linux) no longer than the process runs: the
    standard library looks again and again, up to 50 ms apart."""
    if process.poll() is None and hasattr(os, "pidfd_open"):
        with _opened(os.pidfd_open(process.pid)) as end:
            looked = select.poll()
            looked.register(end, select.POLLIN)
            looked.poll(1000 * LOOK_SECONDS)
        return process.poll() is not None
    try:
        process.wait(LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


@contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _death(status: int, stage: str | None) -> Failure:
    if status == -signal.SIGKILL:
        message = "the job's process was killed (signal 9), perhaps for lack of memory."
        way_out = "Give the worker more memory, or take smaller batch_tokens."
    elif status < 0:
        message = f"the job's process died from {signal.Signals(-status).name}."
        way_out = "The worker's log holds what it last wrote."
    else:
        message = f"the job's process ended with status {status} and without a result."
        way_out = "The worker's log holds what it last wrote."
    return Failure(Blame.INFRASTRUCTURE, stage, message, way_out)

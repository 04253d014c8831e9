"""The worker process's side of a job: start a process for it, step in when it must stop, tidy up after it.

A process per job gives GPU memory back whole, and lets the worker outlive whatever kills a job (a lack of memory,
a crash in a kernel).
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

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

    def run(self) -> None:
        """Returns when the job's process is gone and the job is in a state that the next one can go on from."""
        process = start_child(self._lease)
        try:
            while not _ended(process):
                self._step_in(process)
        finally:
            kill_group(process)
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
    try:
        process.wait(LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


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

"""The process of one job: python -m worker.jobs.child JOB_ID LEASE_TOKEN PARENT_PID

It ends the job itself, under its lease; whatever it leaves open, because it was killed or the worker shuts down,
its parent settles (worker.jobs.supervision).
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time

from publisher.errors import JobCancelled, JobPaused, LeaseLost
from publisher.jobs import transitions
from publisher.jobs.leases import Lease
from publisher.jobs.transitions import RetryPolicy
from publisher.settings import Settings, device_names
from publisher.store.database import Database
from publisher.store.states import EventKind
from worker.jobs.failures import failure_of, trace_of
from worker.jobs.reporter import JobReporter, WorkerStopping
from worker.jobs.request import read_request, secrets_of
from worker.request import BuildRequest

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_PARENT_GONE = 3


class JobProcess:
    """Runs one job and ends it."""

    def __init__(self, database: Database, settings: Settings, lease: Lease, reporter: JobReporter) -> None:
        self._database = database
        self._settings = settings
        self._lease = lease
        self._reporter = reporter
        self._secrets: list[str] = []

    def run(self) -> None:
        """Raises LeaseLost or WorkerStopping when it is not for this process to say how the job ends."""
        try:
            self._build()
        except (LeaseLost, WorkerStopping):
            raise
        except JobCancelled:
            self._reporter.finish(lambda session: transitions.finish_cancel(session, self._lease))
        except JobPaused:
            self._reporter.finish(lambda session: transitions.release(session, self._lease))
        except Exception as error:  # noqa: BLE001 - the border: whatever a stage raises becomes the job's failure
            self._fail(error)

    def _build(self) -> None:
        request = self._request()
        # imported here, since torch takes seconds and the first heartbeat must not wait for it
        from worker.jobs.outcome import read_outcome
        from worker.stages.pipeline import run_pipeline
        from worker.storage.store import StageStore

        store = StageStore(self._settings.stages_dir)
        folders = run_pipeline(request, store, self._reporter.context, on_stage=self._reporter.on_stage)
        done = read_outcome(folders)
        publication, manifest = done.publication.model_dump(mode="json"), done.manifest.model_dump(mode="json")
        self._reporter.finish(
            lambda session: transitions.succeed(session, self._lease, publication, manifest, done.files)
        )

    def _request(self) -> BuildRequest:
        from worker.models.device import choose_device

        device = choose_device(self._settings.worker_device)
        several = [choose_device(name) for name in device_names(self._settings.worker_devices)]
        with self._database.read() as session:
            request = read_request(session, self._settings, self._lease.job_id, device.name, several or [device])
        self._secrets = secrets_of(request)
        return request

    def _fail(self, error: Exception) -> None:
        failure = failure_of(error, self._reporter.stage, self._secrets)
        trace = trace_of(error, self._secrets)
        if trace is not None:
            logger.error("%s: %s", self._lease.job_id, trace)
            self._reporter.emit(EventKind.LOG, {"message": trace, "stage": self._reporter.stage})
        policy = RetryPolicy.of(self._settings)
        self._reporter.finish(lambda session: transitions.fail(session, self._lease, failure, policy))


def run_job(settings: Settings, lease: Lease) -> None:
    """Run a claimed job in this process; returns when it has ended or is for the parent to settle."""
    database = Database(settings.resolved_database_url)
    with JobReporter(database, lease, settings) as reporter:
        stopping = WorkerStopping("the worker shuts down.")
        signal.signal(signal.SIGTERM, lambda number, frame: reporter.interrupt(stopping))
        try:
            JobProcess(database, settings, lease, reporter).run()
        except (LeaseLost, WorkerStopping) as reason:
            logger.warning("%s stops here: %s", lease.job_id, reason)


def die_with(parent: int) -> None:
    """Be killed when the worker is: nobody would settle what this process leaves behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        sys.exit(_PARENT_GONE)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(_PARENT_GONE)


def main() -> None:
    job_id, token, parent = sys.argv[1:]
    die_with(int(parent))
    run_job(Settings(), Lease(job_id, int(token)))


if __name__ == "__main__":
    main()

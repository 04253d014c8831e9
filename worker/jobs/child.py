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
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from publisher.configuration.workers import device_names
from publisher.errors import (
    CredentialFault,
    HubUnavailable,
    JobCancelled,
    JobPaused,
    LeaseLost,
    OutOfDisk,
    RequestFault,
)
from publisher.hub_client.patience import impatient
from publisher.jobs import transitions
from publisher.jobs.identity import identity_of
from publisher.jobs.leases import Lease, job_of, lost
from publisher.jobs.tokens import JobToken, holder_of
from publisher.jobs.transitions import Failure, RetryPolicy
from publisher.jobs.waiting import Waiting, WaitKind
from publisher.logs import fields
from publisher.logs.setup import configure
from publisher.settings import Settings, forget_secrets
from publisher.store.database import Database
from publisher.store.hub_credentials import note_use
from publisher.store.job_history import attempts_before, has_computed
from publisher.store.states import EventKind
from publisher.tracing import spans
from worker.jobs.failures import failure_of, trace_of
from worker.jobs.reporter import JobReporter, WorkerStopping
from worker.jobs.request import read_request, secrets_of
from worker.jobs.settlement import Settlement, open_intent
from worker.jobs.supervision import LEFT_OPEN
from worker.jobs.target import publish_target
from worker.request import BuildRequest
from worker.stages.publication import PublishedOtherwise
from worker.stages.rights import check_rights

if TYPE_CHECKING:  # what it imports takes a while
    from worker.storage.store import StageStore

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
        self._secrets = settings.secret_texts()

    def run(self) -> None:
        """Raises LeaseLost or WorkerStopping when it is not for this process to say how the job ends."""
        try:
            if self._is_to_do():
                self._build()
        except (LeaseLost, WorkerStopping):
            raise
        except JobCancelled:
            self._reporter.finish(lambda session: transitions.finish_cancel(session, self._lease))
        except JobPaused:
            self._reporter.finish(lambda session: transitions.release(session, self._lease))
        except Exception as error:  # noqa: BLE001 - the border: whatever a stage raises becomes the job's failure
            self._fail(error)

    def _is_to_do(self) -> bool:
        """Not if an earlier try has published, or the job was to end with the Hub's answer."""
        with self._database.read() as session:
            opened = open_intent(session, self._settings, self._lease)
        if opened is None:
            return True
        self._secrets.append(opened.target.token)
        self._reporter.ask_the_hub()
        return Settlement(opened, self._lease, self._reporter).settle()

    def _ask_again(self) -> None:
        """Of a job that has waited: whether the Hub is there and takes its token by now, before torch is loaded, which
        takes seconds and gigabytes at each look. Raises what it waits for then."""
        with self._database.read() as session:
            job = job_of(session, self._lease)
            if job.waiting_since is None:
                return
            for earlier in attempts_before(session, job.id, self._lease.token, 1):
                self._reporter.stage = (earlier.waiting or {}).get("stage")
            target = publish_target(session, job.variant, self._settings, self._lease)
        self._secrets.append(target.token)
        with suppress(RequestFault):  # the stage that it stops says so, with what is computed by then
            check_rights(target)

    def _build(self) -> None:
        self._ask_again()
        request = self._request()
        # imported here, since torch takes seconds and the first heartbeat must not wait for it
        from worker.jobs.outcome import read_outcome
        from worker.stages.pipeline import run_pipeline

        store, target = self._store(), request.publish
        assert target is not None, "a job publishes"
        folders = run_pipeline(
            request,
            store,
            self._reporter.context,
            on_stage=self._reporter.on_stage,
            before_work=lambda: check_rights(target),
        )
        done = read_outcome(folders)
        publication, manifest = done.publication.model_dump(mode="json"), done.manifest.model_dump(mode="json")
        self._reporter.finish(
            lambda session: transitions.succeed(session, self._lease, publication, manifest, done.files)
        )

    def _store(self) -> StageStore:
        from worker.jobs.upkeep import stage_upkeep
        from worker.storage.store import StageStore

        upkeep = stage_upkeep(self._database, self._settings)
        return StageStore(self._settings.stages_dir, self._lease.job_id, upkeep)

    def _request(self) -> BuildRequest:
        from worker.models.device import choose_device

        device = choose_device(self._settings.worker_device)
        several = [choose_device(name) for name in device_names(self._settings.worker_devices)]
        with self._database.read() as session:
            request = read_request(session, self._settings, self._lease, device.name, several or [device])
        self._secrets += secrets_of(request)
        assert request.publish is not None, "a job publishes"
        self._note_use()
        return replace(request, publish=replace(request.publish, intents=self._reporter))

    def _note_use(self) -> None:
        with self._database.write() as session:
            note_use(session, job_of(session, self._lease).tenant_id)

    def _fail(self, error: Exception) -> None:
        failure = failure_of(error, self._reporter.stage, self._secrets)
        if isinstance(error, HubUnavailable):
            patience, not_before = self._settings.hub_patience_seconds, error.retry_after or 0.0
            return self._wait(WaitKind.HUB, failure, patience, not_before)
        if isinstance(error, CredentialFault):
            self._refuse_outdated()
            return self._wait(WaitKind.CREDENTIAL, failure, self._patience_for_credential(), 0.0)
        if isinstance(error, OutOfDisk):
            patience, not_before = self._settings.disk_patience_seconds, self._settings.disk_look_seconds
            return self._wait(WaitKind.DISK, failure, patience, not_before)
        return self._end(error, failure)

    def _wait(self, kind: WaitKind, failure: Failure, patience: float | None, not_before: float) -> None:
        waiting = Waiting(kind, failure.message, failure.stage, failure.way_out)
        self._reporter.finish(
            lambda session: transitions.wait_patiently(session, self._lease, waiting, patience, not_before)
        )

    def _refuse_outdated(self) -> None:
        """A token is also refused when its lease is over, which is nobody's fault. Raises LeaseLost."""
        with self._database.read() as session:
            if holder_of(session, JobToken(self._lease.job_id, self._lease.token)) is None:
                raise lost(self._lease)

    def _patience_for_credential(self) -> float | None:
        """None, without end, once something was computed: it is not lost to a token."""
        with self._database.read() as session:
            return None if has_computed(session, self._lease.job_id) else self._settings.hub_patience_seconds

    def _end(self, error: Exception, failure: Failure) -> None:
        trace = trace_of(error, self._secrets)
        if trace is not None:
            logger.error("%s: %s", self._lease.job_id, trace)
            self._reporter.emit(EventKind.LOG, {"message": failure.message, "stage": failure.stage})
        policy, published = RetryPolicy.of(self._settings), isinstance(error, PublishedOtherwise)
        self._reporter.finish(
            lambda session: transitions.fail(session, self._lease, failure, policy, published=published)
        )


def run_job(settings: Settings, lease: Lease) -> bool:
    """Run a claimed job in this process; returns whether it has ended, or it is for the parent to settle."""
    database = Database(settings.resolved_database_url)
    fields.begin(**_known_of(database, lease))
    with JobReporter(database, lease, settings) as reporter:
        stopping = WorkerStopping("the worker shuts down.")
        signal.signal(signal.SIGTERM, lambda number, frame: reporter.interrupt(stopping))
        try:
            JobProcess(database, settings, lease, reporter).run()
        except (LeaseLost, WorkerStopping) as reason:
            logger.warning("%s stops here: %s", lease.job_id, reason)
            return False
    return True


def _known_of(database: Database, lease: Lease) -> dict[str, object]:
    """What each line of the log says of the job."""
    try:
        with database.read() as session:
            identity = identity_of(session, lease)
    except SQLAlchemyError:  # whoever needs the database next says so
        identity = None
    return {"job": lease.job_id} if identity is None else {**identity.as_fields()}


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
    impatient()
    settings = Settings()
    configure(settings, "job", job=job_id)
    spans.start("job")
    forget_secrets()
    if not run_job(settings, Lease(job_id, int(token))):
        sys.exit(LEFT_OPEN)


if __name__ == "__main__":
    main()

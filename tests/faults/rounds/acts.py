"""What each act does to the installation, and how it is undone. (A cancel is asked for, and answered: play.py.)"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import psutil
import redis

from publisher.jobs.broker import QUEUE
from tests.faults.rounds.script import Act
from tests.faults.rounds.site import Site

Undo = Callable[[], None]
#: begins it for a job; what is returned ends it
Begin = Callable[[Site, str], Undo | None]


def _kill_worker(site: Site, job_id: str) -> Undo:
    name = site.worker_of(job_id)
    site.kill(name)
    return lambda: site.start(name)


def _kill_process(site: Site, job_id: str) -> None:
    process = site.process_of(job_id)
    with suppress(psutil.Error):
        if process is not None:
            process.kill()


def _kill_api(site: Site, job_id: str) -> Undo:
    site.kill("api")
    return lambda: site.start("api")


def _suspend(*processes: psutil.Process | None) -> Undo:
    stopped = [process for process in processes if process is not None]
    for process in stopped:
        with suppress(psutil.Error):
            process.suspend()

    def resume() -> None:
        for process in stopped:
            with suppress(psutil.Error):
                process.resume()

    return resume


def _stop_worker(site: Site, job_id: str) -> Undo:
    """First the worker: it would kill its child as soon as it saw the lease lost."""
    return _suspend(site.processes[site.worker_of(job_id)], site.process_of(job_id))


def _stop_process(site: Site, job_id: str) -> Undo:
    return _suspend(site.process_of(job_id))


def _stop_api(site: Site, job_id: str) -> Undo:
    return _suspend(site.processes["api"])


def _wipe_broker(site: Site, job_id: str) -> None:
    with suppress(redis.ConnectionError):
        site.installation.wipe_broker()


def _switch_off(name: str) -> Begin:
    def begin(site: Site, job_id: str) -> Undo:
        site.switches[name].off()
        return site.switches[name].on

    return begin


def _deliver_twice(site: Site, job_id: str) -> None:
    for _ in range(2):
        site.dispatcher.publish(job_id, QUEUE)


def _fill_disk(site: Site, job_id: str) -> Undo:
    site.disk.fill()
    return site.disk.free


ACTS: dict[Act, Begin] = {
    Act.KILL_WORKER: _kill_worker,
    Act.KILL_PROCESS: _kill_process,
    Act.KILL_API: _kill_api,
    Act.STOP_WORKER: _stop_worker,
    Act.STOP_PROCESS: _stop_process,
    Act.STOP_API: _stop_api,
    Act.WIPE_BROKER: _wipe_broker,
    Act.STOP_BROKER: _switch_off("broker"),
    Act.STOP_DATABASE: _switch_off("database"),
    Act.DELIVER_TWICE: _deliver_twice,
    Act.FILL_DISK: _fill_disk,
}

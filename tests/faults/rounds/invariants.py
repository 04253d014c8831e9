"""What holds after every round, whatever was done: looked at from outside, through the API, the Hub and the system."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise

import httpx
import psutil
from filelock import FileLock, Timeout

from publisher.store.states import JobState
from tests.faults.installation import KEY, is_gone
from tests.faults.rounds.play import Play, PlayedJob
from tests.faults.rounds.recorder import replayed, wait, without_times
from tests.faults.rounds.site import MAX_ATTEMPTS, Site

#: what a worker gets to notice that its child is gone, and to kill what it has left
_SETTLE_SECONDS = 10.0

_NEXT = {
    # cancelling: one that waits for the Hub to say what became of a commit (seed 9)
    JobState.QUEUED: {JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING, JobState.CANCELLED},
    JobState.RUNNING: {JobState.QUEUED, JobState.CANCELLING, JobState.SUCCEEDED, JobState.FAILED},
    JobState.CANCELLING: {JobState.CANCELLING, JobState.CANCELLED, JobState.SUCCEEDED},
    JobState.CANCELLED: {JobState.QUEUED},
    JobState.FAILED: {JobState.QUEUED},
    JobState.SUCCEEDED: set(),
}


def violations(play: Play) -> list[str]:
    """One sentence each; none if all is as it must be."""
    found = [*play.problems]
    for job in play.jobs:
        found += [f"job {job.number}: {problem}" for check in _OF_JOBS for problem in check(play, job)]
    return found + [problem for check in _OF_SITES for problem in check(play.site, play)]


def _state(play: Play, job: PlayedJob) -> Iterator[str]:
    """Final; succeeded unless it was cancelled, since every fault of a round passes."""
    answer = play.site.ask("GET", f"/v1/jobs/{job.id}").json()
    allowed = {"succeeded", "cancelled"} if job.cancelled_at > job.retried_at else {"succeeded"}
    if answer["state"] not in allowed:
        failure = answer["failure"]
        yield f"is {answer['state']}, not {' or '.join(sorted(allowed))}: {failure and failure['message']}"


def _publications(play: Play, job: PlayedJob) -> Iterator[str]:
    answer = play.site.ask("GET", f"/v1/jobs/{job.id}").json()
    publication = play.site.ask("GET", f"/v1/variants/{job.variant_id}").json()["publication"]
    commits = play.site.commits(job.repo_id)
    succeeded = answer["state"] == "succeeded"
    if len(commits) != int(succeeded):
        yield f"is {answer['state']} with {len(commits)} publications on the Hub"
    if succeeded and (publication is None or [publication["commit"]] != commits):
        yield f"says that it published {publication and publication['commit']}, the Hub has {commits}"
    if not succeeded and publication is not None:
        yield f"is {answer['state']} and says that it published {publication['commit']}"


def _stream(play: Play, job: PlayedJob) -> Iterator[str]:
    """Recorded across broken connections, it is what a stream from the start tells now: no gap, no repeat."""
    assert job.recorder is not None
    last = play.site.ask("GET", f"/v1/jobs/{job.id}").json()["event_seq"]
    wait(lambda: job.recorder is not None and job.recorder.last >= last, 10)
    yield from job.recorder.problems
    recorded = [without_times(event) for event in job.events]
    if [event["id"] for event in recorded] != list(range(1, last + 1)):
        yield f"{len(recorded)} events were seen of {last}"
    if recorded != [without_times(event) for event in replayed(play.site.url, KEY, job.id)]:
        yield "the stream tells another story when it is read again"


def _path(play: Play, job: PlayedJob) -> Iterator[str]:
    told = [event for event in job.events if event.kind == "state"]
    states = [JobState(event.data["state"]) for event in told]
    for before, after in pairwise(states):
        if after not in _NEXT[before]:
            yield f"went from {before} to {after}"
    if (most := max((event.data["attempt"] for event in told), default=0)) > MAX_ATTEMPTS:
        yield f"had {most} attempts"


def _row(play: Play, job: PlayedJob) -> Iterator[str]:
    row = play.site.installation.job(job.id)
    if row.state.finished and (row.lease_expires_at or row.waiting or row.waiting_since):
        yield f"is {row.state} and holds a lease or waits"


def _token(play: Play, job: PlayedJob) -> Iterator[str]:
    """What a job wrote with while it ran opens nothing afterwards."""
    tokens = [token for token, name in play.behaviour.tokens.items() if name == job.name and token != KEY]
    if valid := sum(_may_write(play.site, job.repo_id, token) for token in tokens):
        yield f"{valid} of its {len(tokens)} tokens may still write to its repository"


def _may_write(site: Site, repo_id: str, token: str) -> bool:
    url, headers = f"{site.url}/hub/api/models/{repo_id}/preupload/main", {"Authorization": f"Bearer {token}"}
    return httpx.post(url, json={"files": []}, headers=headers, timeout=10).is_success


def _processes(site: Site, play: Play) -> Iterator[str]:
    """Nothing runs for jobs that are over, and nothing has died that nobody killed."""
    if not wait(lambda: not _running(play), _SETTLE_SECONDS):
        yield f"processes are left: {_running(play)}"
    for name, process in site.processes.items():
        if is_gone(process):
            yield f"{name} has died by itself"


def _running(play: Play) -> list[str]:
    ids = {job.id for job in play.jobs}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = process.cmdline()
            if "worker.jobs.child" in command and ids & set(command) and not is_gone(process):
                found.append(" ".join(command[-4:]))
    return found


def _locks(site: Site, play: Play) -> Iterator[str]:
    for path in sorted((site.installation.settings.stages_dir / ".locks").glob("*.lock")):
        try:
            with FileLock(path).acquire(timeout=0):
                continue
        except Timeout:
            yield f"{path.name} is still held"


def remains(site: Site) -> list[str]:
    """What a collection leaves of stages and half-made ones, though no job needs any: for the end of a sitting."""
    data = site.installation.settings.data_dir
    code = "from worker.build.gc import gc; gc()"  # `publisher admin gc`, installed or not
    command = [sys.executable, "-c", code, "--data", str(data), "--limit", "0"]
    done = subprocess.run(command, env=site.installation.environment, capture_output=True, text=True, check=False)
    stages = site.installation.settings.stages_dir
    left = [*stages.glob("[!.]*"), *(stages / ".partial").glob("*")]
    found = [f"{path.relative_to(stages)} is left after a collection" for path in left]
    return [f"publisher admin gc failed: {done.stderr}", *found] if done.returncode else found


_OF_JOBS: tuple[Callable[[Play, PlayedJob], Iterator[str]], ...] = (
    _state,
    _publications,
    _stream,
    _path,
    _row,
    _token,
)
_OF_SITES: tuple[Callable[[Site, Play], Iterator[str]], ...] = (_processes, _locks)

"""A job's events in a log."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from publisher.client.events import Event
from publisher.client.job_progress import JobProgress


def events(*told: tuple[float, str, dict[str, Any]]) -> list[Event]:
    return [Event(number, kind, {**data, "at": at}) for number, (at, kind, data) in enumerate(told, 1)]


def test_a_followed_job_in_a_log_goes_by_the_time_of_its_events() -> None:
    log = io.StringIO()
    told = [(0.0, "state", {"state": "running", "attempt": 2}), (1.0, "stage", {"stage": "align", "state": "started"})]
    for second in range(0, 90, 10):
        told.append((second + 1.0, "metric", {"name": "loss", "step": second, "value": None if second == 60 else 2.0}))
        told.append((second + 1.0, "progress", {"stage": "align", "done": second, "total": 90, "unit": "tokens"}))
    told += [
        (90.0, "log", {"message": "stopped early"}),
        (91.0, "stage", {"stage": "align", "state": "finished", "seconds": 90.0}),
        (92.0, "stage", {"stage": "package", "state": "reused"}),
        (93.0, "news", {"of": "a later version"}),
        (94.0, "state", {"state": "succeeded"}),
    ]
    progress = JobProgress(Console(file=log))
    assert progress.show(events(*told)) == "succeeded"
    assert log.getvalue().splitlines() == [
        "attempt 2: running",
        "align      30/90 tokens, step 30, loss 2.000, 1:00 left",
        "align      60/90 tokens, step 60, loss not finite, 0:30 left",
        "  stopped early",
        "align      finished in 90.0 s",
        "package    reused",
    ]


def test_a_failure_is_kept_for_whoever_reports_it() -> None:
    progress = JobProgress(Console(file=io.StringIO()))
    failed = {"state": "failed", "failure": {"message": "no space left"}}
    assert progress.show(events((0.0, "state", failed))) == "failed"
    assert progress.failure == {"message": "no space left"}


def test_what_a_job_waits_for_is_said() -> None:
    log = io.StringIO()
    waits = {"state": "queued", "attempt": 0, "waiting": {"kind": "hub", "message": "the Hub answered 503."}}
    JobProgress(Console(file=log)).show(events((0.0, "state", waits), (1.0, "state", {"state": "succeeded"})))
    assert log.getvalue().splitlines() == ["waiting: the Hub answered 503."]

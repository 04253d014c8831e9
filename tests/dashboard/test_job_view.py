"""What events tell a page, on both kinds of database."""

from __future__ import annotations

from publisher.dashboard.job_view import JobView, StepState, read_view
from publisher.jobs.events import NewEvent
from publisher.store.database import Database
from publisher.store.models import Job
from publisher.store.states import EventKind
from tests.dashboard.rows import OUT_OF_DISK, Account, Work, log, metric, progress, stage_event


def view(database: Database, work: Work) -> JobView:
    with database.read() as session:
        return read_view(session, session.get_one(Job, work.job_id))


def test_view_ends_at_the_number_that_the_job_knew(database: Database) -> None:
    work = Account.create(database, "one").job().start().report(log("before"))
    with database.read() as session:
        job = session.get_one(Job, work.job_id)
        work.report(log("after"), metric("loss", 1, 1.0))
        seen = read_view(session, job)
    assert seen.last_seq == work.last_seq - 2
    assert [event.data["message"] for event in seen.log] == ["before"]
    assert seen.charts == []


def test_last_report_of_a_step_counts_and_gaps_are_left_out(database: Database) -> None:
    work = Account.create(database, "one").job().start()
    gap = NewEvent(EventKind.METRIC, {"name": "loss", "step": 3, "value": None})
    work.report(*[metric("loss", step, 9.0) for step in (1, 2, 4)], gap, metric("tokens_per_second", 1, 5.0))
    work.report(metric("loss", 2, 7.5))
    loss, speed = view(database, work).charts
    assert (loss.name, speed.name) == ("loss", "tokens_per_second")
    assert len(loss.line.split()) == 3
    assert (loss.first, loss.last, loss.lowest, loss.highest) == ((1, 9.0), (4, 9.0), 7.5, 9.0)


def test_another_try_starts_its_steps_over(database: Database) -> None:
    work = Account.create(database, "one").job().start().stages("fetch", running="calibrate")
    work.report(progress("calibrate", 5, 10), stage="calibrate").fail(OUT_OF_DISK, tries=5)
    assert {step.state for step in view(database, work).steps} == {StepState.WAITING}
    assert view(database, work).progress is None


def test_time_left_counts_from_where_this_try_began(database: Database) -> None:
    work = Account.create(database, "one").job().start().stages(running="fetch")
    work.report(NewEvent(EventKind.PROGRESS, progress("fetch", 90, 100).data, at=500.0))
    work.report(stage_event("fetch", "finished", 1.0), stage_event("align", "started"))
    # layers are reconstructed first, which says nothing of how fast training is; resumed: 600 of 1000 were done before
    for done, at in ((0, 900.0), (28, 990.0)):
        work.report(NewEvent(EventKind.PROGRESS, progress("align", done, 28).data | {"unit": "layers"}, at=at))
    for done, at in ((600, 1000.0), (650, 1020.0), (700, 1040.0)):
        work.report(NewEvent(EventKind.PROGRESS, progress("align", done, 1000).data, at=at))
    seen = view(database, work).progress
    assert seen is not None
    assert (seen.stage, seen.percent, seen.first_done, seen.eta) == ("align", 70.0, 600, 120.0)

"""What events tell a page, on both kinds of database."""

from __future__ import annotations

from publisher.dashboard.job_stages import StepState
from publisher.dashboard.job_view import JobView, newest_lines, read_view
from publisher.jobs.events import NewEvent
from publisher.store.database import Database
from publisher.store.models import Job
from publisher.store.states import EventKind
from tests.dashboard.rows import OUT_OF_DISK, RECIPE, Account, Work, log, metric, progress, stage_event


def view(database: Database, work: Work) -> JobView:
    with database.read() as session:
        return read_view(session, session.get_one(Job, work.job_id))


def test_view_ends_at_the_number_that_the_job_knew(database: Database) -> None:
    work = Account.create(database, "one").job().start().report(log("before"))
    with database.read() as session:
        job = session.get_one(Job, work.job_id)
        work.report(log("after"), metric("loss", 1, 1.0))
        seen, lines = read_view(session, job), newest_lines(session, job).lines
    assert seen.last_seq == work.last_seq - 2
    assert [line.message for line in lines] == ["before"]
    assert seen.charts == []


def test_last_report_of_a_step_counts_and_gaps_are_left_out(database: Database) -> None:
    work = Account.create(database, "one").job().start()
    gap = NewEvent(EventKind.METRIC, {"name": "loss", "step": 3, "value": None})
    work.report(*[metric("loss", step, 9.0) for step in (1, 2, 4)], gap, metric("tokens_per_second", 1, 5.0))
    work.report(metric("loss", 2, 7.5))
    loss, speed = view(database, work).charts
    assert (loss.name, speed.name) == ("loss", "tokens_per_second")
    (line,) = loss.lines
    assert len(line.points.split()) == 3
    assert (line.first, line.last, line.lowest, line.highest) == ((1, 9.0), (4, 9.0), 7.5, 9.0)


def test_another_try_starts_its_steps_over(database: Database) -> None:
    work = Account.create(database, "one").job().start().stages("fetch", running="calibrate")
    work.report(progress("calibrate", 5, 10), stage="calibrate").fail(OUT_OF_DISK, tries=5)
    assert {step.state for step in view(database, work).steps} == {StepState.WAITING}
    assert view(database, work).progress is None


def test_speed_counts_from_where_this_try_began_in_its_present_unit(database: Database) -> None:
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
    assert (seen.stage, seen.percent, seen.first_done, seen.first_at, seen.at) == ("align", 70.0, 600, 1000.0, 1040.0)


def test_a_retry_s_progress_is_its_own(database: Database) -> None:
    work = Account.create(database, "one").job().start().stages(running="align")
    work.report(progress("align", 900, 1000), stage="align").fail(OUT_OF_DISK)
    work.retry().start().stages(running="align")
    assert view(database, work).progress is None
    work.report(progress("align", 100, 1000), stage="align")
    seen = view(database, work).progress
    assert seen is not None
    assert (seen.first_done, seen.percent) == (100, 10.0)


def test_losses_of_a_kind_share_their_axes_which_reach_to_the_last_step(database: Database) -> None:
    work = Account.create(database, "one").job().start().stages(running="align")
    work.report(*[metric(name, step, 3.0) for step in (1, 2) for name in ("loss", "direct_loss", "probe_loss")])
    work.report(metric("held_out_loss", 2, 3.5), metric("learning_rate", 1, 0.1), metric("of_tomorrow", 1, 2.0))
    seen = view(database, work)
    assert [[line.name for line in chart.lines] for chart in seen.large] == [
        ["loss", "held_out_loss"],
        ["probe_loss", "direct_loss"],
        ["of_tomorrow"],
    ]
    assert [chart.name for chart in seen.small] == ["learning_rate"]
    assert seen.charts[0].x.high == 32, "131,072 tokens in steps of 4,096"
    assert RECIPE.evaluation is not None
    assert seen.charts[1].x.high == RECIPE.evaluation.probe_budget.steps


def test_perplexity_is_told_model_by_model(database: Database) -> None:
    work = Account.create(database, "one").job().start().stages(running="evaluate")
    measured = [("base", "novel", 7.0), ("base", "docs", 9.0), ("pruned", "novel", 900.0)]
    for step, (form, corpus, value) in enumerate(measured, 1):
        work.report(metric("perplexity", step, value), metric(f"perplexity/{form}/{corpus}", step, value))
    seen = view(database, work)
    assert seen.charts == []
    assert seen.perplexity is not None
    assert seen.perplexity.corpora == ["novel", "docs"]
    assert seen.perplexity.rows == [("Base model", [7.0, 9.0]), ("Pruned model", [900.0, None])]


def test_perplexity_of_nameless_models_is_points_on_a_logarithmic_axis(database: Database) -> None:
    work = Account.create(database, "one").job().start().stages(running="evaluate")
    work.report(*[metric("perplexity", step, value) for step, value in enumerate((7.0, 13000.0, 60.0), 1)])
    seen = view(database, work)
    (chart,) = seen.charts
    assert chart.metric.is_points
    assert chart.y.is_log
    assert seen.perplexity is None

"""A queued job's place among those for the same workers, and when it is expected to start; on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from publisher.jobs import leases, service, transitions
from publisher.jobs.events import NewEvent
from publisher.jobs.outlook import Outlook, outlook, outlooks
from publisher.plan.sizes import GIB
from publisher.recipe.stages import Stage
from publisher.store.database import Database
from publisher.store.models import BaseModel, Job, Variant
from publisher.store.states import EventKind
from tests.dashboard.rows import FACTS, RECIPE
from tests.jobs import rows

STAGES = {
    stage.value: {"state": "finished", "seconds": {Stage.FETCH: 100.0, Stage.ALIGN: 500.0}.get(stage, 0.0)}
    for stage in Stage
}


def seen(database: Database, job_id: str) -> Outlook:
    with database.read() as session:
        return outlook(session, session.get_one(Job, job_id), 30)


def have_taken(database: Database, likeness: str, stages: dict[str, Any] = STAGES) -> None:
    """An earlier job of this kind."""
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        leases.report(session, lease, [], "align", stages)
        transitions.succeed(session, lease, {}, {}, [])
        session.execute(update(Job).where(Job.id == job_id).values(likeness=likeness))


def alike(database: Database, likeness: str, *job_ids: str) -> None:
    with database.write() as session:
        session.execute(update(Job).where(Job.id.in_(job_ids)).values(likeness=likeness))


def test_the_place_is_that_among_jobs_for_the_same_workers(database: Database) -> None:
    rows.add_worker(database, "small", 24 * GIB)
    rows.add_worker(database, "large", 80 * GIB)
    small = rows.add_sized_job(database, GIB)
    large = [rows.add_sized_job(database, 70 * GIB) for _ in range(2)]
    too_large = [rows.add_sized_job(database, 500 * GIB) for _ in range(2)]
    urgent = rows.add_sized_job(database, 60 * GIB, priority=1)
    assert [seen(database, job_id).position for job_id in (urgent, small, *large, *too_large)] == [1, 2, 3, 4, 1, 2]
    assert [seen(database, job_id).missing for job_id in (urgent, small, *large)] == [None] * 4
    assert "the largest worker holds 80.0" in str(seen(database, too_large[0]).missing)


def test_start_and_end_follow_from_what_earlier_jobs_took(database: Database) -> None:
    have_taken(database, "llama")
    rows.add_worker(database, "w", 80 * GIB)
    running, first, second = (rows.add_sized_job(database, GIB) for _ in range(3))
    alike(database, "llama", running, first, second)
    lease = rows.claim(database, running, "w")
    with database.write() as session:
        leases.report(session, lease, [], "align", {"fetch": STAGES["fetch"], "align": {"state": "started"}})
        session.execute(update(Job).where(Job.id == running).values(started_at=Job.started_at - 300))
    now = rows.now(database)
    ends = now + 500 - 200
    assert seen(database, running).end == pytest.approx(ends, abs=5)
    found = seen(database, first)
    assert (found.position, found.start) == (1, pytest.approx(ends, abs=5))
    assert found.end == pytest.approx(ends + 600, abs=5)
    assert seen(database, second).start == pytest.approx(ends + 600, abs=5)


def test_what_a_running_job_tells_corrects_what_earlier_ones_took(database: Database) -> None:
    have_taken(database, "slower")
    running = rows.add_sized_job(database, GIB)
    alike(database, "slower", running)
    lease = rows.claim(database, running, "w")
    now = rows.now(database)
    told = [
        NewEvent(EventKind.PROGRESS, {"stage": "align", "done": done, "total": 1000, "unit": "tokens"}, at=at)
        for done, at in ((0, now - 100), (400, now))
    ]
    stages = {"fetch": STAGES["fetch"], "align": {"state": "started", "at": now - 100}}
    with database.write() as session:
        leases.report(session, lease, [], "align", stages)
    by_others = seen(database, running)
    with database.write() as session:
        leases.report(session, lease, told, "align", stages)
    by_itself = seen(database, running)
    assert by_others.end == pytest.approx(now + 400, abs=5)
    assert by_itself.end == pytest.approx(now + 150, abs=10)
    for found in (by_others, by_itself):
        assert found.earliest is not None
        assert found.latest is not None
        assert found.end is not None
        assert found.earliest < found.end < found.latest
        assert found.share is not None
        assert 0 <= found.share < 1


def test_what_nobody_has_made_yet_is_expected_as_planned_on_the_measured_speed(database: Database) -> None:
    rows.add_worker(database, "w", 80 * GIB)
    variant = rows.add_variant(database)
    with database.write() as session:
        session.execute(update(BaseModel).values(facts=FACTS.model_dump(mode="json")))
        session.execute(update(Variant).values(recipe=RECIPE.model_dump(mode="json")))
    with database.write() as session:
        job_id = service.enqueue(session, session.get_one(Variant, variant.id)).id
    slow = seen(database, job_id)
    assert slow.start == pytest.approx(rows.now(database), abs=5)
    assert slow.end is not None
    assert slow.end > rows.now(database) + 60
    rows.add_worker(database, "faster", 80 * GIB, flops_per_second=1e13, fp32_flops_per_second=1e13)
    fast = seen(database, job_id)
    assert fast.end is not None
    assert fast.end < slow.end


def _of_a_readable_recipe(database: Database) -> str:
    variant = rows.add_variant(database)
    with database.write() as session:
        session.execute(update(BaseModel).values(facts=FACTS.model_dump(mode="json")))
        session.execute(update(Variant).values(recipe=RECIPE.model_dump(mode="json")))
        return service.enqueue(session, session.get_one(Variant, variant.id)).id


def test_a_stage_that_earlier_jobs_never_made_is_expected_as_planned_or_not_at_all(database: Database) -> None:
    have_taken(database, "shared", {stage: STAGES[stage] for stage in ("fetch", "align")})
    running = _of_a_readable_recipe(database)
    alike(database, "shared", running)
    rows.claim(database, running, "w")
    assert seen(database, running).share is None, "nobody knows how long the others take"
    rows.add_worker(database, "w", 80 * GIB)
    found = seen(database, running)
    assert found.stages["align"].likely == 500
    assert found.stages["evaluate"].likely > 0
    assert found.share is not None


def test_nothing_is_learnt_from_a_job_that_was_taken_up_again(database: Database) -> None:
    """Its stages are what was left of them."""
    rows.add_worker(database, "w", 80 * GIB)
    have_taken(database, "again")
    with database.write() as session:
        session.execute(update(Job).values(lease_token=2))
    queued = rows.add_sized_job(database, GIB)
    alike(database, "again", queued)
    assert seen(database, queued).end is None


def test_where_nothing_is_known_nothing_is_said(database: Database) -> None:
    job_id = rows.add_sized_job(database, GIB)
    assert seen(database, job_id) == Outlook(position=1, missing="no worker is running")
    rows.add_worker(database, "w", 80 * GIB)
    assert seen(database, job_id).start is not None
    assert seen(database, job_id).end is None, "base model and recipe cannot be read"


def test_a_job_whose_recipe_no_longer_plans_leaves_the_outlook_of_others_alone(database: Database) -> None:
    rows.add_worker(database, "w", 80 * GIB)
    variant = rows.add_variant(database)
    layers = FACTS.geometry.layers
    recipe = RECIPE.model_dump(mode="json")
    recipe["pruning"] |= {"protect_first": layers, "protect_last": 1}
    with database.write() as session:
        session.execute(update(BaseModel).values(facts=FACTS.model_dump(mode="json")))
        session.execute(update(Variant).values(recipe=recipe))
    with database.write() as session:
        first = service.enqueue(session, session.get_one(Variant, variant.id)).id
    second = rows.add_sized_job(database, GIB)
    assert (seen(database, first).position, seen(database, first).end) == (1, None)
    assert seen(database, second).position == 2


def test_a_retry_is_not_expected_before_it_is_due(database: Database) -> None:
    rows.add_worker(database, "w", 80 * GIB)
    job_id = rows.add_sized_job(database, GIB)
    later = rows.now(database) + 1000
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(claimable_at=later))
    assert seen(database, job_id).start == later


def test_a_job_that_stops_is_expected_at_no_end_and_its_worker_is_free(database: Database) -> None:
    have_taken(database, "llama")
    rows.add_worker(database, "w", 80 * GIB)
    running, next_one = (rows.add_sized_job(database, GIB) for _ in range(2))
    alike(database, "llama", running, next_one)
    rows.claim(database, running, "w")
    assert seen(database, running).end is not None
    with database.write() as session:
        service.cancel(session, running)
    assert seen(database, running).end is None
    assert seen(database, next_one).start == pytest.approx(rows.now(database), abs=5)


def test_a_job_that_is_over_has_no_outlook(database: Database) -> None:
    job_id = rows.add_job(database)
    with database.write() as session:
        service.cancel(session, job_id)
    assert seen(database, job_id) == Outlook()


def test_jobs_of_one_base_model_and_recipe_are_alike_whatever_their_seed(database: Database) -> None:
    variant = rows.add_variant(database)
    likeness = []
    for recipe in ({"seed": 1}, {"seed": 2}, {"seed": 1, "pruning": {"criterion": "random", "ratio": 0.6}}):
        with database.write() as session:
            row = session.get_one(Variant, variant.id)
            row.recipe = row.recipe | recipe
            likeness.append(service.enqueue(session, row).likeness)
    assert likeness[0] == likeness[1] != likeness[2]


def test_several_are_told_as_each_alone(database: Database) -> None:
    rows.add_worker(database, "gpu-1", 80 * GIB)
    ids = [rows.add_sized_job(database, GIB) for _ in range(3)]
    alike(database, "known", *ids)
    have_taken(database, "known")
    rows.claim(database, ids[0], "gpu-1")
    with database.write() as session:
        service.cancel(session, ids[2])
    with database.read() as session:
        several = outlooks(session, [session.get_one(Job, id) for id in ids], 30)
    assert [several[id].position for id in ids] == [None, 1, None]
    for id in ids:
        alone = seen(database, id)
        assert several[id].position == alone.position
        assert several[id].end == pytest.approx(alone.end, abs=5)

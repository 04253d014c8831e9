"""Jobs keep what they need from when they are made, and anew from when they are retried; on both databases."""

from __future__ import annotations

from sqlalchemy import update

from publisher.jobs import service, shapes
from publisher.plan.plan import needs_of_recipe
from publisher.plan.queues import queue_of
from publisher.store.database import Database
from publisher.store.models import BaseModel, Job, Variant
from tests.dashboard.rows import FACTS, RECIPE
from tests.jobs import rows

NEEDS = needs_of_recipe(FACTS.geometry, RECIPE, base_bytes=FACTS.bytes, is_local=False)


def add_real_job(database: Database) -> str:
    """Of a base model and a recipe that can be read."""
    variant = rows.add_variant(database)
    with database.write() as session:
        facts = FACTS.model_dump(mode="json")
        session.execute(update(BaseModel).where(BaseModel.id == variant.base_model_id).values(facts=facts))
        recipe = RECIPE.model_dump(mode="json")
        session.execute(update(Variant).where(Variant.id == variant.id).values(recipe=recipe))
    with database.write() as session:
        return service.enqueue(session, session.get_one(Variant, variant.id)).id


def test_a_job_needs_what_its_plan_says(database: Database) -> None:
    job = rows.load(database, add_real_job(database))
    assert shapes.read_needs(job.needs) == NEEDS
    assert job.queue == queue_of(NEEDS)


def test_jobs_that_need_the_same_are_of_one_kind(database: Database) -> None:
    first, second = (rows.load(database, add_real_job(database)) for _ in range(2))
    assert first.needs_digest == second.needs_digest
    assert first.needs_digest != rows.load(database, rows.add_job(database)).needs_digest


def test_a_retried_job_needs_what_is_known_today(database: Database) -> None:
    job_id = add_real_job(database)
    with database.write() as session:
        service.cancel(session, job_id)
        session.execute(update(Job).where(Job.id == job_id).values(needs={"of": "before"}, needs_digest="x", queue="y"))
    with database.write() as session:
        service.retry(session, job_id)
    job = rows.load(database, job_id)
    assert (shapes.read_needs(job.needs), job.queue) == (NEEDS, queue_of(NEEDS))


def test_a_job_that_cannot_be_read_is_for_every_worker(database: Database) -> None:
    """The one that tries says what is wrong."""
    job = rows.load(database, rows.add_job(database))
    assert (job.needs, job.needs_digest, job.queue) == (None, shapes.UNKNOWN, "1")


def test_a_shape_that_is_there_is_not_replaced(database: Database) -> None:
    job_id = rows.add_sized_job(database, 2**30)
    with database.write() as session:
        shapes.fill(session, job_id)
    assert rows.load(database, job_id).needs_digest == f"{2**30}-True"

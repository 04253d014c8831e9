"""Metrics from the database say what the rows say, whichever process asks."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from publisher.jobs import service, transitions
from publisher.jobs.leases import Lease
from publisher.jobs.reaper import Reaper
from publisher.jobs.transitions import Blame, Failure, RetryPolicy
from publisher.jobs.waiting import Waiting, WaitKind
from publisher.monitoring.database import JobsAndWorkers, JobStates
from publisher.settings import Settings
from publisher.store import tallies
from publisher.store.database import Database, database_now
from publisher.store.models import Job, Webhook, WebhookDelivery
from publisher.store.tallies import Observation
from tests.jobs.rows import add_sized_job, add_worker, claim, last_seen, let_pass, metric
from tests.jobs.rows import report as report_events
from tests.store.rows import add_owner

PATIENCE = 30.0
GIB = 2**30
Sample = tuple[str, frozenset[tuple[str, str]]]


def scrape(database: Database) -> dict[Sample, float]:
    registry = CollectorRegistry()
    registry.register(JobStates(database))
    registry.register(JobsAndWorkers(database, PATIENCE))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name.removeprefix("publisher_"), frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def sample(name: str, **labels: str) -> Sample:
    return name, frozenset(labels.items())


def end(database: Database, lease: Lease, stage: str, failure: Failure | None = None) -> None:
    with database.write() as session:
        session.execute(update(Job).where(Job.id == lease.job_id).values(stage=stage))
        if failure is not None:
            transitions.fail(session, lease, failure, RetryPolicy(5, 10.0))
        else:
            transitions.succeed(session, lease, {}, {}, [])


def test_queued_jobs_are_told_by_queue_and_what_they_wait_for(database: Database) -> None:
    due = add_sized_job(database, 3 * GIB)
    add_sized_job(database, 3 * GIB)
    waits = claim(database, add_sized_job(database, 60 * GIB))
    with database.write() as session:
        transitions.wait(session, waits, Waiting(WaitKind.HUB, "it is away"), 10.0)
    with database.write() as session:
        session.execute(update(Job).where(Job.id == due).values(queued_at=database_now() - 500))
    found = scrape(database)
    assert found[sample("queued_jobs", queue="4", waiting_for="turn")] == 2
    assert found[sample("queued_jobs", queue="64", waiting_for="hub")] == 1
    assert 500 <= found[sample("oldest_queued_job_age_seconds", queue="4", waiting_for="turn")] < 560
    assert found[sample("oldest_queued_job_age_seconds", queue="64", waiting_for="hub")] < 60
    assert found[sample("unfinished_jobs", queue="4", state="queued")] == 2
    assert found[sample("jobs", state="queued")] == 3


def test_the_age_of_a_job_that_is_tried_again_begins_anew(database: Database) -> None:
    job_id = add_sized_job(database, GIB)
    with database.write() as session:
        service.cancel(session, job_id)
        session.execute(update(Job).where(Job.id == job_id).values(queued_at=1.0, created_at=1.0))
    with database.write() as session:
        service.retry(session, job_id)
    assert scrape(database)[sample("oldest_queued_job_age_seconds", queue="1", waiting_for="turn")] < 60


def test_tries_are_counted_by_outcome_stage_and_blame_and_deleting_jobs_takes_none_back(database: Database) -> None:
    before = scrape(database)
    assert before[sample("publications_total", outcome="failed")] == 0
    failing, publishing = (claim(database, add_sized_job(database, GIB)) for _ in range(2))
    end(database, failing, "align", Failure(Blame.INFRASTRUCTURE, "align", "broken"))
    end(database, publishing, "publish")
    with database.write() as session:
        service.cancel(session, failing.job_id)
    found = scrape(database)
    assert found[sample("job_attempts_total", outcome="failed", stage="align", blame="infrastructure")] == 1
    assert found[sample("job_attempts_total", outcome="succeeded", stage="publish", blame="")] == 1
    assert found[sample("publications_total", outcome="succeeded")] == 1
    assert found[sample("publications_total", outcome="failed")] == 0


def test_a_lease_that_ran_out_is_counted_once(database: Database, settings: Settings) -> None:
    let_pass(database, claim(database, add_sized_job(database, GIB)).job_id, 3600)
    reaper = Reaper(database, settings)
    for _ in range(2):
        reaper.run_once()
    found = scrape(database)
    assert found[sample("lease_expiries_total", queue="1")] == 1


def test_workers_are_told_by_capacity_and_whether_they_live(database: Database) -> None:
    add_worker(database, "idle", 12 * GIB, free_disk_bytes=7)
    add_worker(database, "stopped", 12 * GIB, stopped_at=1.0)
    add_worker(database, "died", 12 * GIB)
    last_seen(database, "died", 100)
    add_worker(database, "busy", 50 * GIB)
    claim(database, add_sized_job(database, GIB), worker="busy")
    found = scrape(database)
    for state, capacity in (("idle", "16"), ("stopped", "16"), ("silent", "16"), ("busy", "64")):
        assert found[sample("workers", kind="cpu", capacity=capacity, state=state)] == 1, state
    age = sample("worker_heartbeat_age_seconds", worker="died", kind="cpu", capacity="16", state="silent")
    assert 100 <= found[age] < 160
    assert found[sample("worker_disk_free_bytes", worker="idle")] == 7


def test_stages_are_a_histogram_of_seconds_and_of_memory(database: Database) -> None:
    seconds = [Observation(tallies.STAGE_SECONDS, ("prune",), value) for value in (2.0, 20.0, 1e9)]
    memory = [Observation(tallies.STAGE_MEMORY, ("prune", "gpu"), 3.0 * GIB)]
    with database.write() as session:
        tallies.observe(session, seconds + memory)
    found = scrape(database)
    bucket = {le: found[sample("stage_duration_seconds_bucket", stage="prune", le=le)] for le in ("1.0", "5.0", "60.0")}
    assert bucket == {"1.0": 0, "5.0": 1, "60.0": 2}
    assert found[sample("stage_duration_seconds_bucket", stage="prune", le="+Inf")] == 3
    assert found[sample("stage_duration_seconds_count", stage="prune")] == 3
    assert found[sample("stage_duration_seconds_sum", stage="prune")] == 1e9 + 22
    assert found[sample("stage_peak_memory_bytes_sum", stage="prune", memory="gpu")] == 3 * GIB


def test_speed_is_what_the_job_that_aligns_reported_last(database: Database) -> None:
    job_id = report_events(database, *(metric("tokens_per_second", step, 100.0 * step) for step in (1, 3, 2)))
    assert not [name for name, _ in scrape(database) if name == "alignment_tokens_per_second"]
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(stage="align"))
    assert scrape(database)[sample("alignment_tokens_per_second", worker="w1")] == 300


def test_a_database_that_is_away_leaves_the_rest_of_a_scrape(postgresql_url: str) -> None:
    asleep, broken = CollectorRegistry(), CollectorRegistry()
    database = Database(postgresql_url)  # without tables
    asleep.register(JobsAndWorkers(database, PATIENCE, lambda: False))
    broken.register(JobsAndWorkers(database, PATIENCE))
    assert generate_latest(asleep) == generate_latest(broken) == b""
    database.close()


def test_webhooks_are_told_by_their_health_and_late_deliveries_by_how_late(database: Database) -> None:
    with database.write() as session:
        owner = add_owner(session, "org")
        session.execute(update(WebhookDelivery).values(due_at=database_now() - 100))
    told = scrape(database)
    assert told[sample("webhooks", state="enabled")] == 1
    assert 100 <= told[sample("webhook_delivery_late_seconds")] < 200
    with database.write() as session:
        session.execute(update(Webhook).where(Webhook.id == owner.webhook).values(disabled_at=1.0))
    told = scrape(database)
    assert (told[sample("webhooks", state="enabled")], told[sample("webhooks", state="disabled")]) == (0, 1)
    assert told[sample("webhook_delivery_late_seconds")] == 0

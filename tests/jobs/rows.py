"""Rows that a job needs around it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import update

from publisher.jobs import events, leases, service
from publisher.jobs.events import NewEvent
from publisher.jobs.leases import Lease
from publisher.store.database import Database
from publisher.store.models import BaseModel, Job, Tenant, Variant
from publisher.store.states import EventKind


def add_variant(database: Database) -> Variant:
    """A variant of a tenant of its own; nothing in it can be built."""
    with database.write() as session:
        tenant = Tenant(name=secrets.token_hex(4))
        session.add(tenant)
        session.flush()
        base = BaseModel(tenant_id=tenant.id, repo_id="org/base", revision="0" * 40, facts={})
        session.add(base)
        session.flush()
        variant = Variant(
            tenant_id=tenant.id,
            base_model_id=base.id,
            recipe={"pruning": {"criterion": "random", "ratio": 0.5}},
            recipe_digest="0" * 64,
            publish_repo_id="org/small",
            publish_private=False,
            request_digest="0" * 64,
        )
        session.add(variant)
    return variant


def add_job(database: Database, variant: Variant | None = None) -> str:
    """A queued job, of a tenant of its own unless there is a variant; returns its id."""
    variant = variant or add_variant(database)
    with database.write() as session:
        return service.enqueue(session, variant).id


def claim(database: Database, job_id: str, worker: str = "w1", seconds: float = 60) -> Lease:
    with database.write() as session:
        lease = leases.claim(session, job_id, worker, seconds)
    assert lease is not None
    return lease


def load(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, job_id)


def let_pass(database: Database, job_id: str, seconds: float) -> None:
    """Move the job's deadlines into the past instead of waiting."""
    with database.write() as session:
        session.execute(
            update(Job)
            .where(Job.id == job_id)
            .values(
                lease_expires_at=Job.lease_expires_at - seconds,
                claimable_at=Job.claimable_at - seconds,
                dispatched_at=Job.dispatched_at - seconds,
                cancel_requested_at=Job.cancel_requested_at - seconds,
            )
        )


def metric(name: str, step: int, value: float | None, at: float = 0.0) -> NewEvent:
    return NewEvent(EventKind.METRIC, {"name": name, "step": step, "value": value}, at)


def report(database: Database, *reported: NewEvent) -> str:
    """A running job with these events, numbered from 3: before them it was queued and then claimed."""
    job_id = add_job(database)
    lease = claim(database, job_id)
    with database.write() as session:
        events.append(session, job_id, lease.token, reported)
    return job_id


@dataclass(frozen=True)
class Event:
    seq: int
    kind: str
    data: dict[str, Any]


def read_events(database: Database, job_id: str, after: int = 0) -> list[Event]:
    with database.read() as session:
        return [Event(event.seq, event.kind, event.data) for event in events.read_after(session, job_id, after, 10_000)]


def states(database: Database, job_id: str) -> list[str]:
    """The states that the job went through, as its events tell."""
    return [event.data["state"] for event in read_events(database, job_id) if event.kind == "state"]

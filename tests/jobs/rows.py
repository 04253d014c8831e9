"""Rows that a job needs around it."""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import redis
from sqlalchemy import select, update

from publisher.jobs import events, leases, service
from publisher.jobs.events import NewEvent
from publisher.jobs.leases import Lease
from publisher.plan.needs import Needs, StageNeeds
from publisher.plan.queues import NAMES, queue_of
from publisher.settings import Settings
from publisher.store.database import Database, database_now
from publisher.store.keys import add_tenant
from publisher.store.models import BaseModel, Job, Variant, Worker
from publisher.store.states import EventKind


def add_variant(database: Database, tenant_id: str | None = None) -> Variant:
    """A variant of a tenant, or of one of its own; nothing in it can be built."""
    with database.write() as session:
        if tenant_id is None:
            tenant_id = add_tenant(session, secrets.token_hex(4)).id
        base = BaseModel(tenant_id=tenant_id, repo_id="org/base", revision="0" * 40, facts={})
        session.add(base)
        session.flush()
        variant = Variant(
            tenant_id=tenant_id,
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


def add_sized_job(database: Database, memory_bytes: int, *, gpu: bool = True, priority: int = 0) -> str:
    """A queued job with a stage that needs so much memory, and computes if `gpu`; returns its id."""
    job_id = add_job(database)
    needs = sized_needs(memory_bytes, gpu=gpu)
    digest = f"{memory_bytes}-{gpu}"
    values = {"needs": needs.model_dump(mode="json"), "needs_digest": digest, "queue": queue_of(needs)}
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(precedence=-priority, **values))
    return job_id


def sized_needs(memory_bytes: int, *, gpu: bool = True) -> Needs:
    align = StageNeeds(gpu_bytes=memory_bytes, cpu_bytes=memory_bytes, gpu=gpu)
    return Needs(
        gpu_bytes=memory_bytes, cpu_bytes=memory_bytes, gpu=gpu, disk_bytes=0, several=None, stages={"align": align}
    )


def now(database: Database) -> float:
    """By the database's clock."""
    with database.read() as session:
        return session.scalars(select(database_now())).one()


def last_seen(database: Database, worker: str, seconds: float) -> None:
    """Have the worker be seen so long ago."""
    with database.write() as session:
        session.execute(update(Worker).where(Worker.id == worker).values(seen_at=database_now() - seconds))


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
    """The states that the job went through, as its events tell; what it waits for in one makes no new one."""
    told = [event.data["state"] for event in read_events(database, job_id) if event.kind == "state"]
    return [state for state, _ in groupby(told)]


def waiting_messages(settings: Settings) -> Counter[str]:
    """Queue of the broker → how many messages wait in it."""
    if settings.broker_url.startswith("redis"):
        with redis.Redis.from_url(settings.broker_url) as client:
            names = [key.decode() for key in client.scan_iter("publisher*", _type="list")]
            return Counter({name: int(client.llen(name)) for name in names})
    return Counter(
        path.name.partition(".")[2].removesuffix(".msg")
        for path in (settings.data_dir / "broker" / "messages").iterdir()
    )


def add_worker(database: Database, name: str, memory_bytes: int = 2**30, **values: Any) -> None:
    """Seen now, on a CPU; `values`: columns of its row."""
    row = {"device": "cpu", "flops_per_second": 1e9, "fp32_flops_per_second": 1e9, "memory_bytes": memory_bytes}
    row |= {"kind": "cpu", "queues": list(NAMES)}
    with database.write() as session:
        session.add(Worker(id=name, seen_at=database_now(), **(row | values)))

"""What the service knows of its own processes."""

from __future__ import annotations

from sqlalchemy import JSON, Integer, Text
from sqlalchemy.orm import Mapped, mapped_column

from publisher.store.models.table import Table, new_id


class Worker(Table):
    """What a worker process measured of itself when it started, from which plans take their speed, and what it holds:
    `memory_bytes` of each of `devices` that align together, `free_disk_bytes` for its stages as of `seen_at`. `kind` is
    a publisher.plan.align.Machine; None: written by a version that did not tell. `queues`: those whose jobs it may
    take; None: it knows of the one alone that there was before. `stopped_at`: when it was shut down, if it was.
    """

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(Text)
    flops_per_second: Mapped[float]
    fp32_flops_per_second: Mapped[float]
    memory_bytes: Mapped[int]
    seen_at: Mapped[float]
    kind: Mapped[str | None]
    devices: Mapped[int] = mapped_column(Integer, default=1, server_default="1")
    free_disk_bytes: Mapped[int | None]
    host: Mapped[str | None]
    started_at: Mapped[float | None]
    queues: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    stopped_at: Mapped[float | None]


class ServiceProcess(Table):
    """An API process that is there now (publisher.store.presence).

    `secrets`: fingerprints of those that it accepts, with a space between, first of the one that it signs with; `hub`
    and `broker`: `local` where these lie in its own data folder, else where they are, without passwords.
    """

    __tablename__ = "service_processes"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    version: Mapped[str]
    secrets: Mapped[str]
    hub: Mapped[str]
    broker: Mapped[str]
    started_at: Mapped[float]
    seen_at: Mapped[float]


class Tally(Table):
    """A part of a series of publisher.store.tallies: `count` observations of sum `total`, none of them above `bucket`
    (null: there is no bound). Parts of one series add up; no row is ever changed, so nobody waits for another."""

    __tablename__ = "tallies"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("tally"))
    name: Mapped[str]
    labels: Mapped[str]
    bucket: Mapped[float | None]
    count: Mapped[int]
    total: Mapped[float]

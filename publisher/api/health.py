"""Liveness, readiness, and numbers for Prometheus; open to all, and without anybody's data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from fastapi import APIRouter, Request, status
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field

from publisher.api.watchdog import OK, Watchdog
from publisher.hub.storage import HubStorage
from publisher.store.database import Database
from publisher.store.resources import count_by_state

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str = Field(description="ok, always: a process that does not live does not answer")


class Readiness(BaseModel):
    """`ready`, or `degraded`: what is away is named, and what does not need it is still served."""

    status: str = Field(description="ready or degraded")
    database: str = Field(description="ok, or what is wrong with it")
    broker: str = Field(description="ok, or what is wrong with it")
    storage: str = Field(description="ok, or why the data folder cannot be written to")
    disk: str = Field(description="ok, or how little is free on the data folder's disk")
    workers: int = Field(description="workers seen within the last lease; jobs wait while there is none")
    age: float = Field(description="seconds since the oldest of these was found out")


class JobStates(Collector):
    """`publisher_jobs{state}`, counted in the database whenever Prometheus asks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("publisher_jobs", "Jobs by state.", labels=["state"])
        with self._database.read() as session:
            for state, number in count_by_state(session).items():
                family.add_metric([state.value], number)
        yield family


class DamagedFiles(Collector):
    """`publisher_hub_damaged_files`: contents of the embedded Hub that were found damaged and not replaced since."""

    def __init__(self, hub: HubStorage) -> None:
        self._hub = hub

    def collect(self) -> Iterator[GaugeMetricFamily]:
        damaged = len(self._hub.blobs.damage.all())
        yield GaugeMetricFamily("publisher_hub_damaged_files", "Stored contents found damaged.", value=damaged)


def create_registry(database: Database, hub: HubStorage | None) -> CollectorRegistry:
    """Metrics of this process, of the jobs and, where it is embedded, of the Hub."""
    registry = CollectorRegistry()
    PlatformCollector(registry)
    ProcessCollector(registry=registry)
    registry.register(JobStates(database))
    if hub is not None:
        registry.register(DamagedFiles(hub))
    return registry


@router.get("/healthz", name="get_health")
async def healthz() -> Health:
    """Say that the process lives."""
    return Health(status=OK)


@router.get("/readyz", name="get_readiness", response_model=Readiness, responses={503: {"model": Readiness}})
async def readyz(request: Request) -> Response:
    """Say whether database, broker and storage are there.

    503 while one is away. While only the broker is, requests are still accepted: their jobs wait in the database.
    What is told was found out in the background, at most a few seconds ago.
    """
    found = cast(Watchdog, request.app.state.watchdog).found()
    checks = {name: check.said for name, check in found.items()}
    ready = all(said == OK for said in checks.values())
    body = Readiness(
        status="ready" if ready else "degraded",
        **checks,
        workers=request.app.state.watchdog.workers,
        age=round(max(check.age for check in found.values()), 1),
    )
    return JSONResponse(
        body.model_dump(), status_code=status.HTTP_200_OK if ready else status.HTTP_503_SERVICE_UNAVAILABLE
    )


@router.get("/metrics", name="get_metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """Prometheus metrics: this process, and jobs by state."""
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)

"""Liveness, readiness, and numbers for Prometheus; open to all, and without anybody's data."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fastapi import APIRouter, Request, status
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from publisher.api.service import CurrentService, Service
from publisher.hub.storage import HubStorage
from publisher.store.database import Database
from publisher.store.resources import count_by_state, live_workers

router = APIRouter(tags=["health"])

OK = "ok"


class Health(BaseModel):
    status: str


class Readiness(BaseModel):
    """`ready`, or `degraded`: what is away is named, and what does not need it is still served."""

    status: str
    database: str
    broker: str
    storage: str
    workers: int = Field(description="workers seen within the last lease; jobs wait while there is none")


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


@router.get("/healthz")
def healthz() -> Health:
    """Say that the process lives."""
    return Health(status=OK)


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
def readyz(service: CurrentService) -> Response:
    """Say whether database, broker and storage are there.

    503 while one is away. While only the broker is, requests are still accepted: their jobs wait in the database.
    """
    checks = {"database": _database(service), "broker": _broker(service), "storage": _storage(service)}
    ready = all(check == OK for check in checks.values())
    body = Readiness(status="ready" if ready else "degraded", **checks, workers=_workers(service))
    return JSONResponse(
        body.model_dump(), status_code=status.HTTP_200_OK if ready else status.HTTP_503_SERVICE_UNAVAILABLE
    )


def _database(service: Service) -> str:
    try:
        with service.database.read() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        return f"away: {type(error).__name__}"
    return OK


def _workers(service: Service) -> int:
    try:
        with service.database.read() as session:
            return live_workers(session, service.settings.lease_seconds)
    except SQLAlchemyError:
        return 0


def _broker(service: Service) -> str:
    return OK if service.dispatcher.is_reachable() else "away; jobs are accepted and wait until it is back"


def _storage(service: Service) -> str:
    folder = service.settings.data_dir
    return OK if os.access(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written to"


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """Prometheus metrics: this process, and jobs by state."""
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)

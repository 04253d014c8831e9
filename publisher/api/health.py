"""Liveness and readiness; open to all, and without anybody's data."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Request, status
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from publisher.api.watchdog import OK, Watchdog

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
    capacity: str = Field(description="ok, or the jobs, by queue, that no running worker holds; still ready then")
    age: float = Field(description="seconds since the oldest of these was found out")


@router.get("/healthz", name="get_health")
async def healthz() -> Health:
    """Say that the process lives."""
    return Health(status=OK)


@router.get("/readyz", name="get_readiness", response_model=Readiness, responses={503: {"model": Readiness}})
async def readyz(request: Request) -> Response:
    """Say whether database, broker and storage are there.

    503 while one is away. While only the broker is, requests are still accepted: their jobs wait in the database, as
    they do while no worker runs that holds them, which `capacity` says and which is no reason for 503.
    What is told was found out in the background, at most a few seconds ago.
    """
    found = cast(Watchdog, request.app.state.watchdog).found()
    checks = {name: check.said for name, check in found.items()}
    ready = all(said == OK for said in checks.values())
    body = Readiness(
        status="ready" if ready else "degraded",
        **checks,
        workers=request.app.state.watchdog.workers,
        capacity=request.app.state.watchdog.capacity,
        age=round(max(check.age for check in found.values()), 1),
    )
    return JSONResponse(
        body.model_dump(), status_code=status.HTTP_200_OK if ready else status.HTTP_503_SERVICE_UNAVAILABLE
    )

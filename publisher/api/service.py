"""What every endpoint works with; one per application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from publisher.hub.storage import HubStorage
from publisher.jobs.dispatch import Dispatcher
from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.doorkeeper import Doorkeeper


@dataclass(frozen=True)
class Service:
    """`hub` is None when checkpoints are published to a Hub elsewhere."""

    settings: Settings
    database: Database
    doorkeeper: Doorkeeper
    dispatcher: Dispatcher
    hub: HubStorage | None


async def current_service(request: Request) -> Service:
    # async, though it waits for nothing: what is not is handed to a thread
    return cast(Service, request.app.state.service)


CurrentService = Annotated[Service, Depends(current_service)]

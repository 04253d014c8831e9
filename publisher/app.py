"""The API process: REST, the embedded Hub, the dashboard. `uvicorn publisher.app:app`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache

from anyio import to_thread
from fastapi import Depends, FastAPI

from publisher.api import (
    api_keys,
    base_models,
    corpora,
    families,
    health,
    job_events,
    job_log,
    jobs,
    metrics,
    plans,
    sweeps,
    tenant_events,
    variant_files,
    variants,
    workers,
)
from publisher.api.connections import SilentConnections, allow_many
from publisher.api.errors import add_handlers
from publisher.api.fan_out import FanOut
from publisher.api.metrics import Monitoring
from publisher.api.middleware import MAX_BODY_BYTES, AnnouncedBodies, CarefulHeaders
from publisher.api.openapi import complete_document, operation_id, refuse_unknown_parameters
from publisher.api.outside import Outside
from publisher.api.request_ids import RequestIds
from publisher.api.request_watch import RequestWatch, is_quiet
from publisher.api.service import Service
from publisher.api.shutdown import Shutdown, current_server
from publisher.api.watchdog import Watchdog
from publisher.dashboard.router import create_dashboard
from publisher.files.private import write_private
from publisher.hub.app import service_hub
from publisher.hub.storage import HubStorage
from publisher.hub.upkeep import Upkeep
from publisher.jobs.dispatch import Dispatcher
from publisher.jobs.reaper import Reaper
from publisher.logs.setup import configure, take_over_access_log
from publisher.settings import Settings, settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.keys import ensure_first_key
from publisher.store.private import keep_private
from publisher.tracing import spans

_DESCRIPTION = """
Register base models, plan and make pruned, aligned, quantized variants, publish them to a Hub.

Every call under `/v1` needs `Authorization: Bearer <key>`. Errors are problem details (RFC 9457). Lists are newest
first and page by `?cursor=`.
"""


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings. Nothing is touched before it starts but the signing secret."""
    service = _create_service(settings)
    app = FastAPI(
        title="LoRAM publisher",
        version="1",
        description=_DESCRIPTION,
        lifespan=_lifespan(service),
        telemetry={"operation_spans": False, "metrics": False, "logs": False, "exclude": is_quiet},
        generate_unique_id_function=operation_id,
        # FastAPI's viewers load their scripts from a CDN
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.state.outside = Outside(settings)
    app.state.shutdown = Shutdown()
    app.state.watchdog = Watchdog(service)
    app.state.fan_out = FanOut(service.database)
    app.state.monitoring = Monitoring()
    app.state.monitoring.observe(service, app.state.watchdog, app.state.fan_out, app.state.outside)
    add_handlers(app)
    app.add_middleware(AnnouncedBodies)
    app.add_middleware(CarefulHeaders)
    app.state.tells_requests = False
    app.add_middleware(
        RequestWatch, metrics=app.state.monitoring.http, tell_line=lambda: bool(app.state.tells_requests)
    )
    app.add_middleware(RequestIds)
    known_only = [Depends(refuse_unknown_parameters)]
    resources = (
        *(base_models, families, corpora, plans, variants, variant_files, sweeps),
        *(jobs, job_events, job_log, tenant_events, workers, api_keys),
    )
    for resource in resources:
        app.include_router(resource.router, max_body_size=MAX_BODY_BYTES, dependencies=known_only)
    app.include_router(health.router, max_body_size=MAX_BODY_BYTES)
    app.include_router(metrics.router, max_body_size=MAX_BODY_BYTES)
    app.include_router(create_dashboard(), max_body_size=MAX_BODY_BYTES)
    complete_document(app)
    _mount_hub(app, service)
    return app


def __getattr__(name: str) -> FastAPI:
    """`app`, made when a server asks for it: importing this module reads no settings."""
    if name == "app":
        return _served()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _served() -> FastAPI:
    """uvicorn asks twice: once to see that it can be imported."""
    configure(settings(), "api")
    spans.start("api")
    app = create_app(settings())
    app.state.tells_requests = take_over_access_log()
    return app


def _create_service(settings: Settings) -> Service:
    database = Database(settings.resolved_database_url)
    hub = HubStorage(settings.hub_dir) if settings.hub_is_embedded else None
    return Service(settings, database, Dispatcher(database, settings), hub)


def _lifespan(service: Service) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        before = await to_thread.run_sync(keep_private, service.settings)
        await to_thread.run_sync(_prepare, service)
        app.state.monitoring.serve(service.settings)
        loop_watch = asyncio.create_task(app.state.monitoring.loop.run())
        await to_thread.run_sync(app.openapi)  # takes a moment, which no request should wait for
        reaper = Reaper(service.database, service.settings)
        reaper.start()
        upkeep = None if service.hub is None else Upkeep(service.hub)
        if upkeep is not None:
            upkeep.start()
        app.state.fan_out.start()
        await app.state.watchdog.start()
        server = current_server()
        silent = None if server is None else asyncio.create_task(SilentConnections(server).run())
        try:
            with app.state.shutdown.at_signals():
                yield
        finally:
            if silent is not None:
                silent.cancel()
            app.state.watchdog.stop()
            loop_watch.cancel()
            app.state.monitoring.stop()
            await app.state.fan_out.stop()
            if upkeep is not None:
                upkeep.stop()
            await to_thread.run_sync(reaper.stop)
            service.dispatcher.close()
            service.database.close()
            os.umask(before)

    return lifespan


def _prepare(service: Service) -> None:
    allow_many()
    migrate.upgrade(service.settings.resolved_database_url)
    chosen, file = service.settings.bootstrap_key, service.settings.first_key_file
    made = ensure_first_key(
        service.database, chosen.get_secret_value() if chosen else None, lambda key: write_private(file, f"{key}\n")
    )
    if made is not None:
        # the key itself would stay in whatever keeps this output
        print(f"\nFirst start. Your API key is in {file.absolute()}; delete it when you have it.\n", file=sys.stderr)


def _mount_hub(app: FastAPI, service: Service) -> None:
    if service.hub is None:
        return
    settings = service.settings
    public_url = settings.public_url if "public_url" in settings.model_fields_set else None
    app.mount("/hub", service_hub(settings, service.database, service.hub, public_url))

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
    audit,
    base_models,
    corpora,
    families,
    health,
    hub_credentials,
    job_events,
    job_log,
    jobs,
    me,
    metrics,
    plans,
    quotas,
    sweeps,
    tenant_events,
    variant_files,
    variants,
    webhooks,
    workers,
)
from publisher.api.errors import add_handlers
from publisher.api.fan_out import FanOut
from publisher.api.metrics import Monitoring
from publisher.api.middleware import MAX_BODY_BYTES, AnnouncedBodies, CarefulHeaders
from publisher.api.openapi import complete_document, operation_id, refuse_unknown_parameters
from publisher.api.outside import Outside
from publisher.api.request_watch import RequestWatch, is_quiet
from publisher.api.scopes import refuse_unlisted, require_scope
from publisher.api.service import Service
from publisher.api.shutdown import Shutdown
from publisher.api.watchdog import Watchdog
from publisher.api.webhook_messages import describe_messages
from publisher.dashboard.oidc import create_provider
from publisher.dashboard.router import create_dashboard
from publisher.dashboard.unknown import add_pages
from publisher.files.private import write_private
from publisher.hub.app import embedded_hub, service_hub
from publisher.hub.connections import allow_many, silent_ones_closed
from publisher.hub.grants import adopt_namespaces
from publisher.hub.rate_limits import RateLimiter, RateLimitHeaders
from publisher.hub.refused_start import RefusalsInASentence
from publisher.hub.request_ids import RequestIds
from publisher.hub.upkeep import Upkeep
from publisher.hub_client.guard import guard_clients
from publisher.installation.presence import Presence
from publisher.jobs.dispatch import Dispatcher
from publisher.jobs.reaper import Reaper
from publisher.logs.setup import configure, take_over_access_log
from publisher.settings import Settings, settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.doorkeeper import Doorkeeper
from publisher.store.keys import ensure_first_key
from publisher.store.private import keep_private
from publisher.store.quotas import keep_defaults
from publisher.store.starting import refuse_unusable, said_at_start
from publisher.tracing import spans
from publisher.webhooks.deliverer import Deliverer

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
    app.state.provider = create_provider(settings)
    app.state.shutdown = Shutdown()
    app.state.watchdog = Watchdog(service)
    app.state.fan_out = FanOut(service.database, settings.event_streams_per_tenant)
    app.state.monitoring = Monitoring()
    app.state.monitoring.observe(service, app.state.watchdog, app.state.fan_out, app.state.outside)
    add_handlers(app)
    add_pages(app)
    app.add_middleware(AnnouncedBodies)
    app.add_middleware(CarefulHeaders)
    app.state.tells_requests = False
    app.add_middleware(RateLimitHeaders)
    app.add_middleware(
        RequestWatch, metrics=app.state.monitoring.http, tell_line=lambda: bool(app.state.tells_requests)
    )
    app.add_middleware(RequestIds)
    app.add_middleware(RefusalsInASentence)
    checks = [Depends(require_scope), Depends(refuse_unknown_parameters)]
    resources = (
        *(base_models, families, corpora, plans, variants, variant_files, sweeps),
        *(jobs, job_events, job_log, tenant_events, workers),
        *(me, api_keys, webhooks, hub_credentials, quotas, audit),
    )
    for resource in resources:
        app.include_router(resource.router, max_body_size=MAX_BODY_BYTES, dependencies=checks)
    app.include_router(health.router, max_body_size=MAX_BODY_BYTES)
    app.include_router(metrics.router, max_body_size=MAX_BODY_BYTES)
    app.include_router(create_dashboard(), max_body_size=MAX_BODY_BYTES)
    refuse_unlisted(app)
    describe_messages(app)
    complete_document(app)
    _mount_hub(app, service)
    return app


def __getattr__(name: str) -> FastAPI:
    """`app`, made when a server asks for it: importing this module reads no settings."""
    if name == "app":
        with said_at_start():
            return _served()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _served() -> FastAPI:
    """uvicorn asks twice: once to see that it can be imported."""
    refuse_unusable(settings())
    configure(settings(), "api")
    spans.start("api")
    app = create_app(settings())
    app.state.tells_requests = take_over_access_log()
    return app


def _create_service(settings: Settings) -> Service:
    database = Database(settings.resolved_database_url)
    hub = embedded_hub(settings, database) if settings.hub_is_embedded else None
    rates, doorkeeper = RateLimiter(database, settings), Doorkeeper.of(settings, database)
    return Service(settings, database, doorkeeper, Dispatcher(database, settings), hub, rates)


def _lifespan(service: Service) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        before = await to_thread.run_sync(keep_private, service.settings)
        presence = Presence(service.settings, service.database)
        await to_thread.run_sync(_prepare, service, presence)
        app.state.monitoring.serve(service.settings)
        loop_watch = asyncio.create_task(app.state.monitoring.loop.run())
        await to_thread.run_sync(app.openapi)  # takes a moment, which no request should wait for
        reaper = Reaper(service.database, service.settings)
        reaper.start()
        service.doorkeeper.start()
        deliverer = Deliverer(service.database, service.settings)
        deliverer.start()
        upkeep = None if service.hub is None else Upkeep(service.hub)
        if upkeep is not None:
            upkeep.start()
        app.state.fan_out.start()
        await app.state.watchdog.start()
        try:
            async with silent_ones_closed():
                with app.state.shutdown.at_signals():
                    yield
        finally:
            app.state.watchdog.stop()
            loop_watch.cancel()
            app.state.monitoring.stop()
            await app.state.fan_out.stop()
            if upkeep is not None:
                upkeep.stop()
            await to_thread.run_sync(deliverer.stop)
            await to_thread.run_sync(reaper.stop)
            await to_thread.run_sync(presence.stop)
            await to_thread.run_sync(service.doorkeeper.stop)
            service.dispatcher.close()
            service.database.close()
            os.umask(before)

    return lifespan


def _prepare(service: Service, presence: Presence) -> None:
    allow_many()
    guard_clients()
    migrate.prepare(service.settings)
    keep_defaults(service.database, service.settings)
    presence.start()
    chosen, file = service.settings.bootstrap_key, service.settings.first_key_file
    made = ensure_first_key(
        service.database,
        chosen.get_secret_value() if chosen else None,
        lambda key: write_private(file, f"{key}\n"),
        service.doorkeeper.digests,
    )
    if service.hub is not None:
        adopt_namespaces(service.database, service.hub)
    if made is not None:
        # the key itself would stay in whatever keeps this output
        print(f"\nFirst start. Your API key is in {file.absolute()}; delete it when you have it.\n", file=sys.stderr)


def _mount_hub(app: FastAPI, service: Service) -> None:
    if service.hub is None:
        return
    settings = service.settings
    public_url = settings.public_url if "public_url" in settings.model_fields_set else None
    hub = service_hub(
        settings, service.database, service.hub, public_url, doorkeeper=service.doorkeeper, rates=service.rates
    )
    app.mount("/hub", hub)

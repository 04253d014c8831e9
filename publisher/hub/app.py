"""The embedded Hub on its own, at the root of a host or a port: `uvicorn publisher.hub.app:app`.

The API serves the same Hub under /hub. Both work on the same storage, at the same time.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import FastAPI

from publisher.errors import RequestFault
from publisher.hub.owner import Owner
from publisher.hub.router import create_hub
from publisher.hub.storage import HubStorage
from publisher.hub.upkeep import Upkeep
from publisher.jobs.tokens import holder_of, read_job_token
from publisher.logs.fields import tell
from publisher.logs.setup import configure
from publisher.settings import Settings, settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.faults import database_faults
from publisher.store.keys import tenant_of
from publisher.store.private import keep_private


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings. Raises RequestFault where checkpoints are published to a Hub elsewhere."""
    if not settings.hub_is_embedded:
        raise RequestFault(
            f"PUBLISHER_HUB_ENDPOINT is {settings.hub_endpoint}: there is no embedded Hub to serve.",
            way_out="Unset it to publish to the embedded Hub; PUBLISHER_HUB_URL is where people reach that one.",
        )
    database = Database(settings.resolved_database_url)
    storage = HubStorage(settings.hub_dir)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        before = await to_thread.run_sync(keep_private, settings)
        await to_thread.run_sync(migrate.upgrade, settings.resolved_database_url)
        upkeep = Upkeep(storage)
        upkeep.start()
        try:
            yield
        finally:
            upkeep.stop()
            database.close()
            os.umask(before)

    app = FastAPI(title="Embedded Hub", openapi_url=None, lifespan=lifespan)
    app.get("/healthz")(_healthz)
    app.mount("", service_hub(settings, database, storage, settings.hub_url))
    return app


def service_hub(settings: Settings, database: Database, storage: HubStorage, public_url: str | None) -> FastAPI:
    """The service's Hub, to mount: API keys and running jobs' tokens are its access tokens.

    `public_url` is where people reach what it is mounted in, if that was configured.
    """
    secret = settings.secret_bytes()
    # Without a configured address, links lead to where the request came in: that works from every network. So they
    # do where the configured one is this machine's own name for itself.
    elsewhere = None if public_url is None or _is_loopback(public_url) else public_url
    return create_hub(storage, authenticate=hub_authentication(database, secret), secret=secret, public_url=elsewhere)


def hub_authentication(database: Database, secret: bytes) -> Callable[[str], Owner | None]:
    """Whose token it is that somebody shows to the Hub: an API key, or a running job's token."""

    def authenticate(token: str) -> Owner | None:
        job_token = read_job_token(secret, token)
        with database_faults(database.engine.url), database.read() as session:
            if job_token is not None:
                holder = holder_of(session, job_token)
                tell(tenant=holder.tenant_id if holder else None, job=job_token.job_id)
                return Owner(holder.tenant_id, holder.tenant_name, holder.repo_id) if holder else None
            tenant = tenant_of(session, token)
        tell(tenant=tenant.id if tenant else None)
        return Owner(tenant.id, tenant.name) if tenant else None

    return authenticate


def __getattr__(name: str) -> FastAPI:
    """`app`, made when a server asks for it: importing this module reads no settings."""
    if name == "app":
        configure(settings(), "hub")
        return create_app(settings())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _healthz() -> dict[str, str]:
    return {"status": "ok"}


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761

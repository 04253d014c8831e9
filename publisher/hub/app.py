"""The embedded Hub on its own, at the root of a host or a port: `uvicorn publisher.hub.app:app`.

The API serves the same Hub under /hub. Both work on the same storage, at the same time.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import FastAPI

from publisher.errors import RequestFault
from publisher.hub.connections import allow_many, silent_ones_closed
from publisher.hub.grants import DatabaseGrants, adopt_namespaces
from publisher.hub.journal import audit_journal
from publisher.hub.owner import Owner
from publisher.hub.rate_limits import RateLimiter, RateLimitHeaders
from publisher.hub.refused_start import RefusalsInASentence
from publisher.hub.request_ids import RequestIds
from publisher.hub.room import TenantsRoom
from publisher.hub.router import create_hub
from publisher.hub.storage import HubStorage
from publisher.hub.upkeep import Upkeep
from publisher.jobs.tokens import holder_of, read_job_token
from publisher.keys.text import is_damaged
from publisher.logs.fields import tell
from publisher.logs.setup import configure
from publisher.settings import Settings, settings
from publisher.signing.keyring import Keyring
from publisher.store import migrate, origin
from publisher.store.database import Database
from publisher.store.doorkeeper import Doorkeeper
from publisher.store.faults import database_faults
from publisher.store.origin import Subject
from publisher.store.private import keep_private
from publisher.store.starting import refuse_unusable, said_at_start
from publisher.store.tenants import refuse_suspended


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings. Raises RequestFault where checkpoints are published to a Hub elsewhere."""
    if not settings.hub_is_embedded:
        raise RequestFault(
            f"PUBLISHER_HUB_ENDPOINT is {settings.hub_endpoint}: there is no embedded Hub to serve.",
            way_out="Unset it to publish to the embedded Hub; PUBLISHER_HUB_URL is where people reach that one.",
        )
    database = Database(settings.resolved_database_url)
    storage, doorkeeper = embedded_hub(settings, database), Doorkeeper.of(settings, database)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        before = await to_thread.run_sync(keep_private, settings)
        await to_thread.run_sync(migrate.prepare, settings)
        await to_thread.run_sync(adopt_namespaces, database, storage)
        doorkeeper.start()
        upkeep = Upkeep(storage)
        upkeep.start()
        allow_many()
        try:
            async with silent_ones_closed():
                yield
        finally:
            upkeep.stop()
            doorkeeper.stop()
            database.close()
            os.umask(before)

    app = FastAPI(title="Embedded Hub", openapi_url=None, lifespan=lifespan)
    app.add_middleware(RateLimitHeaders)
    app.add_middleware(RequestIds)
    app.add_middleware(RefusalsInASentence)
    app.get("/healthz")(_healthz)
    app.mount("", service_hub(settings, database, storage, settings.hub_url, doorkeeper=doorkeeper))
    return app


def service_hub(
    settings: Settings,
    database: Database,
    storage: HubStorage,
    public_url: str | None,
    *,
    doorkeeper: Doorkeeper | None = None,
    rates: RateLimiter | None = None,
) -> FastAPI:
    """The service's Hub, to mount: API keys and running jobs' tokens are its access tokens.

    `public_url` is where people reach what it is mounted in, if that was configured. `doorkeeper` and `rates`: the
    process's, if it has them already.
    """
    secret = settings.signing_secrets()
    # Without a configured address, links lead to where the request came in: that works from every network. So they
    # do where the configured one is this machine's own name for itself.
    elsewhere = None if public_url is None or _is_loopback(public_url) else public_url
    known = doorkeeper or Doorkeeper.of(settings, database)
    authenticate = hub_authentication(database, secret, known, rates or RateLimiter(database, settings))
    return create_hub(storage, authenticate=authenticate, secret=secret, public_url=elsewhere)


def embedded_hub(settings: Settings, database: Database) -> HubStorage:
    """Its storage, with what the database knows of it: grants, quotas, the audit log."""
    return HubStorage(
        settings.hub_dir, DatabaseGrants(database), journal=audit_journal(database), room=TenantsRoom(database)
    )


def hub_authentication(
    database: Database, secret: bytes | Keyring, doorkeeper: Doorkeeper, rates: RateLimiter
) -> Callable[[str], Owner | None]:
    """Whose token it is that somebody shows to the Hub: an API key, whose tenant's requests are counted, or a running
    job's token. Raises Suspended."""

    def authenticate(token: str) -> Owner | None:
        job_token = read_job_token(secret, token)
        with database_faults(database.engine.url), database.read() as session:
            if job_token is not None:
                holder = holder_of(session, job_token)
                if holder is None:
                    return None
                origin.caller_is(Subject.job(job_token.job_id))
                tell(tenant=holder.tenant_id, job=job_token.job_id)
                return Owner(holder.tenant_id, holder.tenant_name, holder.repo_id)
            found = None if is_damaged(token) else doorkeeper.find(session, token)
        if found is None:
            return None
        key, tenant = found
        refuse_suspended(tenant)
        origin.caller_is(Subject.key(key.id))
        tell(tenant=tenant.id, key_id=key.id)
        rates.admit(tenant.id)
        return Owner(tenant.id, tenant.name, rights=key.rights)

    return authenticate


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
    configure(settings(), "hub")
    return create_app(settings())


def _healthz() -> dict[str, str]:
    return {"status": "ok"}


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761

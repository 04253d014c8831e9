"""Whose token it is that somebody shows to the embedded Hub: an API key, or a running job's token."""

from __future__ import annotations

from collections.abc import Callable

from publisher.hub.owner import Owner
from publisher.jobs.tokens import read_job_token
from publisher.store.database import Database
from publisher.store.keys import tenant_of
from publisher.store.models import Tenant


def hub_authentication(database: Database, secret: bytes) -> Callable[[str], Owner | None]:
    """What `create_hub` asks."""

    def authenticate(token: str) -> Owner | None:
        claims = read_job_token(secret, token)
        with database.read() as session:
            tenant = session.get(Tenant, claims.tenant_id) if claims else tenant_of(session, token)
        return Owner(tenant.id, tenant.name) if tenant else None

    return authenticate

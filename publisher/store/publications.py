"""What was published, over all tenants: for those who look after the installation, never for an answer to a tenant."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from publisher.store.models import Tenant, Variant


@dataclass(frozen=True)
class PublishedVariant:
    """Of which variant, at which Hub, in which commit of which repository."""

    variant_id: str
    endpoint: str
    repo_id: str
    commit: str


def published_variants(connection: Connection) -> list[PublishedVariant]:
    """All whose checkpoint lies in a Hub, by age."""
    rows = connection.execute(
        select(Variant.id, Variant.publication).where(Variant.publication.is_not(None)).order_by(Variant.id)
    )
    return [PublishedVariant(id, it["endpoint"], it["repo_id"], it["commit"]) for id, it in rows]


def tenant_ids(connection: Connection) -> set[str]:
    """Those that own namespaces and repositories."""
    return set(connection.scalars(select(Tenant.id)))

"""How many bytes a tenant may store: looked at before bytes are sent, and taken before they are kept.

What is on disk is the truth; the rows by which bytes are counted are brought back to it once a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sqlalchemy.orm import Session

from publisher.errors import RequestFault
from publisher.jobs.quotas import take_turn
from publisher.store import stored_objects
from publisher.store.database import Database
from publisher.store.faults import database_faults
from publisher.store.quotas import STORED_BYTES, limit_of
from publisher.store.stored_objects import Sizes
from publisher.store.tenants import refuse_if_suspended

#: an upload of a large model may take hours until its commit comes
UPLOAD_GRACE_SECONDS = 24 * 3600


class StorageQuotaExceeded(RequestFault):
    """507, as for a full disk: clients and jobs that wait for room go on when there is some."""

    status = 507
    slug = "storage-quota-exceeded"
    title = "Storage quota exceeded"


class Room(Protocol):
    """`sizes`: sha256 → bytes of contents that a repository of this tenant is to hold. StorageQuotaExceeded if they are
    more than there is room for."""

    def admit(self, tenant: str) -> None:
        """Somebody may send it something. Raises Suspended."""

    def require(self, tenant: str, sizes: Sizes) -> None:
        """There is room now."""

    def take(self, tenant: str, repository: str, sizes: Sizes) -> frozenset[str]:
        """They count from now on; returns those that did not before."""

    def give_back(self, repository: str, digests: frozenset[str]) -> None:
        """They did not come."""

    def forget(self, repository: str) -> None:
        """It was deleted."""

    def settle(self, held: Mapping[tuple[str, str], Sizes]) -> None:
        """What there is on disk: of each tenant's repository."""


class Boundless:
    """Of a folder on its own: nobody counts."""

    def admit(self, tenant: str) -> None:
        pass

    def require(self, tenant: str, sizes: Sizes) -> None:
        pass

    def take(self, tenant: str, repository: str, sizes: Sizes) -> frozenset[str]:
        return frozenset()

    def give_back(self, repository: str, digests: frozenset[str]) -> None:
        pass

    def forget(self, repository: str) -> None:
        pass

    def settle(self, held: Mapping[tuple[str, str], Sizes]) -> None:
        pass


class TenantsRoom:
    """Counted in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def admit(self, tenant: str) -> None:
        with database_faults(self._database.engine.url), self._database.read() as session:
            refuse_if_suspended(session, tenant)

    def require(self, tenant: str, sizes: Sizes) -> None:
        with database_faults(self._database.engine.url), self._database.read() as session:
            refuse_over_storage(session, tenant, sizes)

    def take(self, tenant: str, repository: str, sizes: Sizes) -> frozenset[str]:
        with database_faults(self._database.engine.url), self._database.write() as session:
            take_turn(session, tenant, "bytes")
            refuse_over_storage(session, tenant, sizes)
            new = stored_objects.missing_of_repository(session, repository, sizes)
            stored_objects.add(session, tenant, repository, new)
        return frozenset(new)

    def give_back(self, repository: str, digests: frozenset[str]) -> None:
        with database_faults(self._database.engine.url), self._database.write() as session:
            stored_objects.remove(session, repository, digests)

    def forget(self, repository: str) -> None:
        with database_faults(self._database.engine.url), self._database.write() as session:
            stored_objects.remove_repository(session, repository)

    def settle(self, held: Mapping[tuple[str, str], Sizes]) -> None:
        """What was counted within the last day stays: it may be on its way."""
        with database_faults(self._database.engine.url):
            for (tenant, repository), sizes in held.items():
                with self._database.write() as session:
                    take_turn(session, tenant, "bytes")
                    old = stored_objects.older_than(session, repository, UPLOAD_GRACE_SECONDS)
                    stored_objects.remove(session, repository, old - sizes.keys())
                    new = stored_objects.missing_of_repository(session, repository, sizes)
                    stored_objects.add(session, tenant, repository, new)
            with self._database.write() as session:
                for gone in stored_objects.repositories(session) - {repository for _, repository in held}:
                    stored_objects.remove_repository(session, gone)


def refuse_over_storage(session: Session, tenant: str, sizes: Sizes) -> None:
    """StorageQuotaExceeded if these contents are more than the tenant has room for; those that it has need none."""
    most = limit_of(session, tenant, STORED_BYTES)
    if most is None:
        return
    new = sum(stored_objects.missing_of_tenant(session, tenant, sizes).values())
    used = stored_objects.stored_bytes(session, tenant)
    if new and used + new > most:
        raise StorageQuotaExceeded(
            f"{new:,} bytes more do not fit: {used:,} of {most:,} are stored ({STORED_BYTES.name}).",
            way_out="Delete repositories that nobody needs, or ask the service's operator for more.",
        )

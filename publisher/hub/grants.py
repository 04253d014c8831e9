"""Whose a namespace is, as the service's database says: the operator grants them, and nobody takes one by coming first.

Where there is one tenant alone, all that is nobody's is its own, and granted to it when it first uses it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from sqlalchemy.exc import IntegrityError

from publisher.hub.faults import Damaged
from publisher.store import namespaces
from publisher.store.database import Database
from publisher.store.faults import database_faults

if TYPE_CHECKING:
    from publisher.hub.storage import HubStorage

_logger = logging.getLogger(__name__)


class Grants(Protocol):
    def may_use(self, namespace: str, tenant: str, recorded: Callable[[], str | None]) -> bool:
        """Whether `tenant` may create repositories there; `recorded`: whose the Hub's folder says that it is."""

    def take(self, namespace: str, tenant: str) -> None:
        """Keep that it is the tenant's, who may use it, from now on."""


class DatabaseGrants:
    """Those of publisher.store.namespaces. What the folder alone knows was taken before there were grants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def may_use(self, namespace: str, tenant: str, recorded: Callable[[], str | None]) -> bool:
        with database_faults(self._database.engine.url), self._database.read() as session:
            return namespaces.may_use(session, namespace, tenant, recorded)

    def take(self, namespace: str, tenant: str) -> None:
        try:
            with database_faults(self._database.engine.url), self._database.write() as session:
                namespaces.grant_if_free(session, namespace, tenant)
        except IntegrityError:
            pass  # at the same time on another machine: for the same tenant, since nobody else may use it


def adopt_namespaces(database: Database, storage: HubStorage) -> None:
    """At a start: who has a namespace by the folder's records from before there were grants is granted it, and every
    tenant its own name's. What was taken back since stays so."""
    owners = {}
    for namespace in storage.namespaces():
        try:
            if (tenant := storage.namespace_tenant(namespace)) is not None:
                owners[namespace] = tenant
        except Damaged as error:
            _logger.error("%s", error)
    try:
        with database.write() as session:
            namespaces.adopt(session, owners)
    except IntegrityError:
        pass  # another process that started at the same time did it

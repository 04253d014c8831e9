"""Namespaces are a tenant's by grant: coming first gives nobody one, unless there is nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.hub.faults import Forbidden
from publisher.hub.grants import DatabaseGrants, adopt_namespaces
from publisher.hub.names import RepositoryId
from publisher.hub.owner import Owner
from publisher.hub.storage import HubStorage
from publisher.store import namespaces
from publisher.store.database import Database
from publisher.store.keys import add_tenant
from publisher.store.models import Tenant


def tenant(database: Database, name: str) -> Owner:
    with database.write() as session:
        return Owner(add_tenant(session, name).id, name)


def create(storage: HubStorage, id: str, owner: Owner) -> None:
    storage.create_repository(RepositoryId.parse(id), owner, private=False)


@pytest.fixture
def storage(database: Database, tmp_path: Path) -> HubStorage:
    return HubStorage(tmp_path / "hub", DatabaseGrants(database))


def test_of_several_tenants_none_takes_a_namespace_by_coming_first(database: Database, storage: HubStorage) -> None:
    vision, speech = tenant(database, "vision"), tenant(database, "speech")
    create(storage, "vision/a", vision)
    for id in ("lab/a", "speech/a"):
        with pytest.raises(Forbidden, match="publisher admin tenant grant TENANT NAMESPACE"):
            create(storage, id, vision)
    create(storage, "speech/a", speech)


def test_a_sole_tenant_goes_on_as_before_and_keeps_what_it_took(database: Database, storage: HubStorage) -> None:
    vision = tenant(database, "vision")
    create(storage, "lab/a", vision)
    speech = tenant(database, "speech")
    create(storage, "lab/b", vision)
    with pytest.raises(Forbidden):
        create(storage, "lab/c", speech)
    with pytest.raises(Forbidden):
        create(storage, "new/a", vision)


def test_a_granted_namespace_is_used_and_one_taken_back_is_nobodys(database: Database, storage: HubStorage) -> None:
    vision, speech = tenant(database, "vision"), tenant(database, "speech")
    with database.write() as session:
        namespaces.grant(session, "lab", session.get_one(Tenant, vision.tenant))
    create(storage, "lab/a", vision)
    with database.write() as session:
        namespaces.ungrant(session, "lab", session.get_one(Tenant, vision.tenant))
    for owner in (vision, speech):
        with pytest.raises(Forbidden):
            create(storage, "lab/b", owner)
    adopt_namespaces(database, storage)  # the next start
    with pytest.raises(Forbidden):
        create(storage, "lab/b", vision)
    with database.write() as session:
        namespaces.grant(session, "lab", session.get_one(Tenant, speech.tenant))
    create(storage, "lab/b", speech)
    assert storage.namespace_tenant("lab") == speech.tenant


def test_who_had_a_namespace_before_there_were_grants_keeps_it(database: Database, tmp_path: Path) -> None:
    vision, speech = tenant(database, "vision"), tenant(database, "speech")
    with database.write() as session:
        for namespace in ("vision", "speech"):
            session.delete(namespaces.namespace_row(session, namespace))
    before = HubStorage(tmp_path / "hub")
    create(before, "lab/a", vision)
    create(before, "speech/a", vision)  # came first, to the other's name
    storage = HubStorage(tmp_path / "hub", DatabaseGrants(database))
    create(storage, "lab/b", vision)
    adopt_namespaces(database, storage)
    adopt_namespaces(database, storage)
    with database.read() as session:
        assert namespaces.namespaces_of(session, vision.tenant) == ["lab", "speech", "vision"]
        assert namespaces.namespaces_of(session, speech.tenant) == []
    with pytest.raises(Forbidden):
        create(storage, "speech/b", speech)

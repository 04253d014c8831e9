"""One tenant never sees another's rows, and cannot tell them from rows that do not exist."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from publisher.errors import NotFound
from publisher.store import resources
from publisher.store.database import Database
from publisher.store.models import Table, Variant
from publisher.store.tenancy import Owned, owned, readable_by
from tests.store.rows import OWNED, Owner, add_owner


@pytest.fixture
def owners(database: Database) -> tuple[Owner, Owner]:
    with database.write() as session:
        return add_owner(session, "mine", idempotency_key="k"), add_owner(session, "other", idempotency_key="k")


def test_every_table_with_a_tenant_is_among_those_that_are_filtered() -> None:
    with_tenant = {table.name for table in Table.metadata.tables.values() if "tenant_id" in table.columns}
    # events are read by their job, or by the tenant alone, limits and contents only counted, namespaces read by name
    # a tenant's one credential is read by the tenant's id, and memberships by the person
    elsewhere = {"job_events", "quota_limits", "hub_objects", "hub_namespaces", "hub_credentials", "memberships"}
    assert with_tenant - elsewhere == {model.__tablename__ for model, _ in OWNED}
    assert {model for model, _ in OWNED} == set(Owned.__constraints__)


@pytest.mark.parametrize(("model", "row"), OWNED)
def test_tenant_reads_own_rows_alone(
    database: Database, owners: tuple[Owner, Owner], model: type[Table], row: str
) -> None:
    mine, other = owners
    with database.read() as session:
        for owner in (mine, other):
            found = session.scalars(readable_by(owner.tenant_id, model)).all()
            assert [each.id for each in found] == [getattr(owner, row)]


@pytest.mark.parametrize(("model", "row"), OWNED)
def test_somebody_elses_row_is_refused_in_the_words_for_one_that_does_not_exist(
    database: Database, owners: tuple[Owner, Owner], model: type[Table], row: str
) -> None:
    mine, other = owners
    said = []
    with database.read() as session:
        for id in (getattr(other, row), "no-such-id"):
            with pytest.raises(NotFound) as refused:
                owned(session, model, mine.tenant_id, id)
            said.append(str(refused.value).replace(id, "…"))
        assert owned(session, model, mine.tenant_id, getattr(mine, row)).id == getattr(mine, row)
    assert said[0] == said[1]


def test_names_and_keys_of_requests_are_each_tenants_own(database: Database, owners: tuple[Owner, Owner]) -> None:
    """Both tenants gave a corpus the same name, registered the same model and sent the same Idempotency-Key."""
    facts = SimpleNamespace(repo_id="org/base", revision="0" * 40, published_as="org/base")
    with database.read() as session:
        for owner in owners:
            tenant = owner.tenant_id
            corpus = resources.find_corpus(session, tenant, "novels")
            request = resources.find_request(session, Variant, tenant, "k")
            base = resources.find_base_model(session, tenant, facts)
            assert corpus is not None
            assert request is not None
            assert base is not None
            assert (corpus.id, request.id, base.id) == (owner.corpus, owner.variant, owner.base_model)
            by_name = resources.corpora_by_name(session, tenant, ["novels", "none"])
            assert {name: found.id for name, found in by_name.items()} == {"novels": owner.corpus}
            assert resources.corpus_names(session, tenant) == ["novels"]
        assert resources.find_request(session, Variant, owners[0].tenant_id, "unknown") is None


def test_model_published_under_another_name_is_another(database: Database, owners: tuple[Owner, Owner]) -> None:
    facts = SimpleNamespace(repo_id="org/base", revision="0" * 40, published_as="org/renamed")
    with database.read() as session:
        assert resources.find_base_model(session, owners[0].tenant_id, facts) is None

"""Pages by cursor hold every row once, whatever their times and whatever is added meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.models import ApiKey, BaseModel, Corpus, Job, Variant
from publisher.store.paging import newest_first
from publisher.store.tenancy import Owned, readable_by
from tests.store.rows import Owner, add_owner, add_variant


@pytest.fixture
def owner(database: Database) -> Owner:
    """With six variants, five of which were made at the same time, in another order than their ids'."""
    with database.write() as session:
        owner = add_owner(session, "mine")
        for number in (4, 1, 6, 2, 5, 3):
            variant = add_variant(session, owner.tenant_id, owner.base_model)
            variant.id, variant.created_at = f"var_{number}", 5.0 if number < 6 else 1.0
        session.get_one(Variant, owner.variant).jobs[0].variant_id = "var_1"
        session.flush()
        session.expire_all()
        session.delete(session.get_one(Variant, owner.variant))
        other = add_owner(session, "other")
        add_variant(session, other.tenant_id, other.base_model).id = "var_35"
    return owner


def pages(session: Session, owner: Owner, limit: int, cursor: str | None = None) -> list[list[str]]:
    found = []
    while True:
        rows = newest_first(session, readable_by(owner.tenant_id, Variant), Variant, cursor, limit)
        found.append([row.id for row in rows.items])
        cursor = rows.next_cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 6, 7, 100])
def test_pages_together_hold_every_row_once_newest_first(database: Database, owner: Owner, limit: int) -> None:
    with database.read() as session:
        found = pages(session, owner, limit)
    assert [id for page in found for id in page] == [f"var_{number}" for number in range(6, 0, -1)]
    assert {len(page) for page in found[:-1]} <= {limit}
    assert found[-1], "the last page is not empty"


def test_row_that_is_added_meanwhile_shifts_nothing(database: Database, owner: Owner) -> None:
    with database.read() as session:
        first = newest_first(session, readable_by(owner.tenant_id, Variant), Variant, None, 3)
    assert first.next_cursor == "var_4"
    with database.write() as session:
        add_variant(session, owner.tenant_id, owner.base_model).id = "var_7"
    with database.read() as session:
        assert pages(session, owner, 3, first.next_cursor) == [["var_3", "var_2", "var_1"]]


def test_row_that_is_deleted_meanwhile_may_be_the_cursor(database: Database, owner: Owner) -> None:
    with database.write() as session:
        session.delete(session.get_one(Variant, "var_4"))
    with database.read() as session:
        assert pages(session, owner, 2, "var_4") == [["var_3", "var_2"], ["var_1"]]


def test_list_without_rows_is_one_empty_page(database: Database, owner: Owner) -> None:
    with database.read() as session:
        rows = newest_first(session, readable_by("ten_none", BaseModel), BaseModel, None, 5)
    assert (list(rows.items), rows.next_cursor) == ([], None)


def test_cursor_of_somebody_else_leads_to_own_rows_alone(database: Database, owner: Owner) -> None:
    with database.read() as session:
        assert pages(session, owner, 10, "var_35") == [["var_3", "var_2", "var_1"]]


@pytest.mark.parametrize("model", [ApiKey, BaseModel, Corpus, Variant, Job])
def test_sqlite_sorts_nothing_for_a_page(sqlite_url: str, model: type[Owned]) -> None:
    migrate.upgrade(sqlite_url)
    database, plans = Database(sqlite_url), list[str]()

    @event.listens_for(database.engine, "before_cursor_execute")
    def explain(connection: Connection, cursor: Any, statement: str, parameters: Any, *others: object) -> None:
        if statement.startswith("SELECT"):
            plan = connection.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[-1] for row in plan)

    with database.read() as session:
        newest_first(session, readable_by("ten", model), model, f"{model.id_kind}_1", 5)
    database.close()
    assert [plan for plan in plans if "tenant_id=? AND id<?" in plan]
    assert not [plan for plan in plans if "TEMP B-TREE" in plan]

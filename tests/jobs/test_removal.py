"""What is deleted leaves nothing behind, and nothing goes that somebody still uses."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from publisher.errors import Conflict, NotFound
from publisher.jobs import leases, service, transitions
from publisher.jobs.events import NewEvent
from publisher.jobs.removal import remove_job, remove_variant
from publisher.jobs.transitions import PublishedFile
from publisher.store import deletion
from publisher.store.database import Database
from publisher.store.labels import change_labels, set_labels
from publisher.store.models import BaseModel, Corpus, Job, Table, Variant
from publisher.store.resources import corpora_by_name
from publisher.store.states import EventKind, JobState
from publisher.store.tenancy import hold, owned
from tests.jobs import rows
from tests.store.rows import Owner, add_owner, add_variant


def count(database: Database) -> dict[str, int]:
    with database.read() as session:
        tables = Table.metadata.sorted_tables
        return {table.name: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


@pytest.fixture
def done(database: Database) -> str:
    """A job that succeeded, with events, an attempt and files, of a variant with labels."""
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        leases.report(session, lease, [NewEvent(EventKind.LOG, {"message": "x"})], "fetch", {})
        transitions.succeed(session, lease, {"commit": "c"}, {}, [PublishedFile("config.json", 1, "0" * 64)])
        set_labels(session, session.get_one(Variant, session.get_one(Job, job_id).variant_id), {"team": "ads"})
    return job_id


def test_variant_goes_with_all_that_belongs_to_it(database: Database, done: str) -> None:
    with database.write() as session:
        remove_variant(session, session.get_one(Variant, session.get_one(Job, done).variant_id))
    left = {table: number for table, number in count(database).items() if number}
    # that it was asked for, ended and was deleted stays in the audit log, and how it ended is counted
    assert left == {"tenants": 1, "hub_namespaces": 1, "base_models": 1, "audit_log": 3, "tallies": 1}


def test_job_goes_with_its_events_and_attempts_and_its_variant_stays(database: Database, done: str) -> None:
    with database.write() as session:
        remove_job(session, session.get_one(Job, done))
    counted = count(database)
    assert [counted[table] for table in ("jobs", "job_events", "job_attempts")] == [0, 0, 0]
    assert (counted["variants"], counted["variant_files"]) == (1, 1)


@pytest.mark.parametrize("state", [state for state in JobState if not state.finished])
def test_job_that_has_not_ended_stays_and_its_variant_too(database: Database, state: JobState) -> None:
    job_id = rows.add_job(database)
    with database.write() as session:
        session.execute(update(Job).values(state=state))
    with database.write() as session:
        job = session.get_one(Job, job_id)
        with pytest.raises(Conflict, match=f"is {state}"):
            remove_job(session, job)
        with pytest.raises(Conflict, match=f"is {state}"):
            remove_variant(session, job.variant)


@pytest.mark.parametrize("wish", [service.cancel, service.retry, service.pause, service.resume])
def test_wish_for_a_job_that_was_deleted_meanwhile_finds_none(database: Database, wish: object) -> None:
    with database.write() as session, pytest.raises(NotFound):
        wish(session, "job_gone")  # type: ignore[operator]


@pytest.fixture
def owner(database: Database) -> Owner:
    with database.write() as session:
        return add_owner(session, "mine")


def name_corpus(database: Database, variant: str, corpus: str) -> None:
    recipe = {"pruning": {"ratio": 0.5, "calibration": {"corpus": corpus}}}
    with database.write() as session:
        session.execute(update(Variant).where(Variant.id == variant).values(recipe=recipe))


def test_base_model_that_was_used_stays_and_names_its_variants(database: Database, owner: Owner) -> None:
    with database.write() as session, pytest.raises(Conflict, match=owner.variant):
        deletion.delete_base_model(session, session.get_one(BaseModel, owner.base_model))


def test_corpus_that_a_recipe_names_stays_and_names_the_variants(database: Database, owner: Owner) -> None:
    name_corpus(database, owner.variant, "novels")
    with database.write() as session:
        for _ in range(25):
            more = add_variant(session, owner.tenant_id, owner.base_model)
            more.recipe = {"pruning": {"ratio": 0.5, "calibration": {"corpus": "novels"}}}
    with database.write() as session, pytest.raises(Conflict, match=owner.variant) as refused:
        deletion.delete_corpus(session, session.get_one(Corpus, owner.corpus))
    assert str(refused.value).count("var_") == 20
    assert "and more" in str(refused.value)


@pytest.mark.parametrize("named", ["novels_2", "xnovels", "novel", "NOVELS"])
def test_corpus_with_a_name_alike_is_another(database: Database, owner: Owner, named: str) -> None:
    name_corpus(database, owner.variant, named)
    with database.write() as session:
        deletion.delete_corpus(session, session.get_one(Corpus, owner.corpus))
    assert count(database)["corpora"] == 0


def test_request_that_names_a_corpus_keeps_it_until_its_variant_is_there(database: Database, owner: Owner) -> None:
    """Who deletes it waits, and then sees who uses it."""
    refused: list[str] = []

    def delete_it() -> None:
        try:
            with database.write() as session:
                deletion.delete_corpus(session, session.get_one(Corpus, owner.corpus))
        except Conflict as error:
            refused.append(str(error))

    other = threading.Thread(target=delete_it)
    with database.write() as session:
        assert set(corpora_by_name(session, owner.tenant_id, ["novels", "none"], kept=True)) == {"novels"}
        other.start()
        other.join(0.3)
        assert other.is_alive()
        variant = add_variant(session, owner.tenant_id, owner.base_model)
        variant.recipe = {"pruning": {"ratio": 0.5, "calibration": {"corpus": "novels"}}}
        session.flush()
    other.join(10)
    assert len(refused) == 1
    assert variant.id in refused[0]


def test_request_for_a_base_model_keeps_it_until_its_variant_is_there(database: Database, owner: Owner) -> None:
    with database.write() as session:
        deletion.delete_variant(session, session.get_one(Variant, owner.variant))
    refused: list[str] = []

    def delete_it() -> None:
        try:
            with database.write() as session:
                deletion.delete_base_model(session, session.get_one(BaseModel, owner.base_model))
        except Conflict as error:
            refused.append(str(error))

    other = threading.Thread(target=delete_it)
    with database.write() as session:
        owned(session, BaseModel, owner.tenant_id, owner.base_model, kept=True)
        other.start()
        other.join(0.3)
        assert other.is_alive()
        variant = add_variant(session, owner.tenant_id, owner.base_model)
    other.join(10)
    assert len(refused) == 1
    assert variant.id in refused[0]


def delete_variant(session: Session, owner: Owner) -> None:
    deletion.delete_variant(session, owned(session, Variant, owner.tenant_id, owner.variant))


def delete_corpus(session: Session, owner: Owner) -> None:
    deletion.delete_corpus(session, owned(session, Corpus, owner.tenant_id, owner.corpus))


def label_variant(session: Session, owner: Owner) -> None:
    change_labels(session, owned(session, Variant, owner.tenant_id, owner.variant), {"team": "ads"})


Change = Callable[[Session, Owner], None]


@pytest.mark.parametrize(
    ("first", "second"),
    [(delete_variant, label_variant), (delete_variant, delete_variant), (delete_corpus, delete_corpus)],
)
def test_change_of_what_is_deleted_just_now_finds_none(
    database: Database, owner: Owner, first: Change, second: Change
) -> None:
    found: list[type[Exception] | None] = []

    def change() -> None:
        try:
            with database.write() as session:
                second(session, owner)
            found.append(None)
        except Exception as error:  # noqa: BLE001 which one is what is asked
            found.append(type(error))

    other = threading.Thread(target=change)
    with database.write() as session:
        first(session, owner)
        other.start()
        other.join(0.3)
        assert other.is_alive()
    other.join(10)
    assert found == [NotFound]


def test_labels_change_while_their_variant_is_deleted_without_a_deadlock(database: Database, owner: Owner) -> None:
    """Both take the variant before its labels."""
    with database.write() as session:
        set_labels(session, session.get_one(Variant, owner.variant), {"team": "search"})
    left: list[str] = []

    def delete_it() -> None:
        with database.write() as session:
            delete_variant(session, owner)
            left.append("deleted")

    other = threading.Thread(target=delete_it)
    with database.write() as session:
        variant = owned(session, Variant, owner.tenant_id, owner.variant)
        hold(session, variant)
        other.start()
        other.join(0.3)
        assert other.is_alive()
        set_labels(session, variant, {"team": "ads"})
    other.join(10)
    assert left == ["deleted"]

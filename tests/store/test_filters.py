"""Lists are narrowed down by labels, states, times and what a row belongs to, alike on both databases."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from publisher.errors import RequestFault
from publisher.jobs import service
from publisher.store import filters
from publisher.store.database import Database
from publisher.store.filters import Filters
from publisher.store.labels import change_labels, set_labels
from publisher.store.models import BaseModel, Corpus, Job, Label, Sweep, Variant
from publisher.store.states import JobState
from tests.store.rows import Owner, add_owner, add_variant


@dataclass(frozen=True)
class Rows:
    owner: Owner
    other: Owner
    second: str
    second_job: str


@pytest.fixture
def rows(database: Database) -> Rows:
    """Two variants of one tenant with labels, and one of another tenant with the same."""
    with database.write() as session:
        owner, other = add_owner(session, "mine"), add_owner(session, "other")
        second = add_variant(session, owner.tenant_id, owner.base_model)
        job = service.enqueue(session, second)
        service.cancel(session, job.id)
        for id in (owner.variant, other.variant):
            set_labels(session, session.get_one(Variant, id), {"team": "search", "stage": "trial"})
        set_labels(session, second, {"team": "search", "stage": "final"})
    return Rows(owner, other, second.id, job.id)


def ids(database: Database, statement: Select[BaseModel] | Select[Corpus] | Select[Variant] | Select[Job]) -> list[str]:
    with database.read() as session:
        return [row.id for row in session.scalars(statement)]


def variants(database: Database, rows: Rows, **wanted: object) -> set[str]:
    return set(ids(database, filters.variants(rows.owner.tenant_id, Filters(**wanted))))  # type: ignore[arg-type]


def jobs(database: Database, rows: Rows, **wanted: object) -> set[str]:
    return set(ids(database, filters.jobs(rows.owner.tenant_id, Filters(**wanted))))  # type: ignore[arg-type]


def test_all_labels_have_to_hold(database: Database, rows: Rows) -> None:
    both = {rows.owner.variant, rows.second}
    assert variants(database, rows, labels=[("team", "search")]) == both
    assert variants(database, rows, labels=[("team", "search"), ("stage", "final")]) == {rows.second}
    assert variants(database, rows, labels=[("team", "ads")]) == set()
    assert jobs(database, rows, labels=[("stage", "final")]) == {rows.second_job}


def test_base_models_and_corpora_are_found_by_their_own_labels(database: Database, rows: Rows) -> None:
    mine, wanted = rows.owner, Filters(labels=[("text", "novel")])
    with database.write() as session:
        set_labels(session, session.get_one(Corpus, mine.corpus), {"text": "novel"})
    assert ids(database, filters.corpora(mine.tenant_id, wanted)) == [mine.corpus]
    assert ids(database, filters.base_models(mine.tenant_id, wanted)) == []
    assert ids(database, filters.base_models(mine.tenant_id, Filters(repo_id="org/base"))) == [mine.base_model]
    assert ids(database, filters.base_models(mine.tenant_id, Filters(repo_id="org/other"))) == []


def test_states_are_those_of_jobs(database: Database, rows: Rows) -> None:
    assert jobs(database, rows, states=[JobState.CANCELLED]) == {rows.second_job}
    assert variants(database, rows, states=[JobState.CANCELLED]) == {rows.second}
    assert variants(database, rows, states=[JobState.QUEUED, JobState.RUNNING]) == {rows.owner.variant}


def test_base_model_repository_sweep_and_variant_narrow_down(database: Database, rows: Rows) -> None:
    with database.write() as session:
        sweep = Sweep(tenant_id=rows.owner.tenant_id, request={}, request_digest="0")
        session.add(sweep)
        session.flush()
        of_second = update(Variant).where(Variant.id == rows.second)
        session.execute(of_second.values(publish_repo_id="org/second", sweep_id=sweep.id))
    both = {rows.owner.job, rows.second_job}
    assert jobs(database, rows, base_model_id=rows.owner.base_model) == both
    assert jobs(database, rows, base_model_id=rows.other.base_model) == set()
    assert jobs(database, rows, repo_id="org/second") == {rows.second_job}
    assert jobs(database, rows, sweep_id=sweep.id) == {rows.second_job}
    assert jobs(database, rows, variant_id=rows.owner.variant) == {rows.owner.job}
    assert variants(database, rows, repo_id="org/second", sweep_id=sweep.id) == {rows.second}


def test_times_bound_from_and_until_before(database: Database, rows: Rows) -> None:
    with database.write() as session:
        for id, at in ((rows.owner.job, 100.0), (rows.second_job, 200.0)):
            session.execute(update(Job).where(Job.id == id).values(created_at=at))
    assert jobs(database, rows, created_after=200) == {rows.second_job}
    assert jobs(database, rows, created_before=200) == {rows.owner.job}
    assert jobs(database, rows, created_after=100, created_before=201) == {rows.owner.job, rows.second_job}


def stored(session: Session, id: str) -> dict[str, str]:
    found = session.execute(select(Label.key, Label.value).where(Label.resource_id == id))
    return {row.key: row.value for row in found}


def test_change_sets_and_takes_away_and_leaves_the_rest(database: Database, rows: Rows) -> None:
    with database.write() as session:
        change_labels(session, session.get_one(Variant, rows.second), {"team": "ads", "stage": None, "new": ""})
    with database.read() as session:
        kept = session.get_one(Variant, rows.second).labels
        assert kept == stored(session, rows.second) == {"team": "ads", "new": ""}
        assert stored(session, rows.owner.variant) == {"team": "search", "stage": "trial"}


def test_more_labels_than_allowed_are_refused_and_nothing_changes(database: Database, rows: Rows) -> None:
    with database.write() as session, pytest.raises(RequestFault, match="22 labels; 20 are allowed"):
        change_labels(session, session.get_one(Variant, rows.second), {f"k{number}": "" for number in range(20)})
    with database.read() as session:
        assert session.scalar(select(func.count()).where(Label.resource_id == rows.second)) == 2


def test_search_is_by_parts_of_names_and_beginnings_of_ids(database: Database, rows: Rows) -> None:
    with database.write() as session:
        session.execute(update(Variant).where(Variant.id == rows.second).values(publish_repo_id="org/50%_Less"))
    both, mine = {rows.owner.job, rows.second_job}, {rows.owner.variant, rows.second}
    assert jobs(database, rows, search="50%_less") == {rows.second_job}
    assert jobs(database, rows, search="5%l") == jobs(database, rows, search="50%xless") == set()
    assert jobs(database, rows, search="RG/BASE") == both  # the base model's name
    assert jobs(database, rows, search=rows.second_job) == {rows.second_job}
    assert jobs(database, rows, search="job_") == both
    assert variants(database, rows, search="less") == {rows.second}
    assert variants(database, rows, search="var_") == mine
    assert jobs(database, rows, search="less", states=[JobState.QUEUED]) == set()


def test_jobs_are_found_by_what_they_do_and_wait_for(database: Database, rows: Rows) -> None:
    values = {"state": JobState.QUEUED, "stage": "align", "worker": "gpu-1", "queue": "16", "waiting_kind": "hub"}
    with database.write() as session:
        session.execute(update(Job).where(Job.id == rows.second_job).values(**values))
    for name, value in (("stage", "align"), ("worker", "gpu-1"), ("queue", "16"), ("waiting_for", "hub")):
        assert jobs(database, rows, **{name: value}) == {rows.second_job}
    assert jobs(database, rows, waiting_for=filters.TURN) == {rows.owner.job}
    with database.read() as session:
        counted = filters.count_by_state(session, rows.owner.tenant_id, Filters(queue="16"))
    assert counted == {JobState.QUEUED: 1}

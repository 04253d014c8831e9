"""Lists sorted otherwise than by age: alike on both databases, what is not known last, and a page after the other."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from sqlalchemy import update

from publisher.jobs import service
from publisher.store import filters, orders
from publisher.store.database import Database
from publisher.store.filters import Filters
from publisher.store.models import BaseModel, Job, Variant
from publisher.store.paging import page_of
from publisher.store.states import JobState
from tests.store.rows import Owner, add_owner, add_variant


@dataclass(frozen=True)
class Rows:
    """Four variants of one tenant with a job each, from the oldest; another tenant has one of each, too."""

    owner: Owner
    variants: list[str]
    jobs: list[str]


#: name, reduction, verdict; state, begun, ended
MADE = [
    ("org/b", 2.0, "failed", JobState.SUCCEEDED, 100.0, 190.0),
    ("org/d", None, None, JobState.QUEUED, None, None),
    ("org/a", 4.0, "passed", JobState.SUCCEEDED, 100.0, 1000.0),
    ("org/c", 3.0, "inconclusive", JobState.FAILED, 100.0, 101.0),
]


@pytest.fixture
def rows(database: Database) -> Rows:
    with database.write() as session:
        owner = add_owner(session, "mine")
        add_owner(session, "other")
        session.delete(session.get_one(Job, owner.job))
        session.flush()
        session.delete(session.get_one(Variant, owner.variant))
        made = [add_variant(session, owner.tenant_id, owner.base_model) for _ in MADE]
        jobs = [service.enqueue(session, variant).id for variant in made]
        names = [variant.id for variant in made]
        for variant, job, (name, reduction, verdict, state, begun, ended) in zip(names, jobs, MADE, strict=True):
            of_variant = update(Variant).where(Variant.id == variant)
            session.execute(of_variant.values(publish_repo_id=name, reduction=reduction, verdict=verdict))
            of_job = update(Job).where(Job.id == job)
            session.execute(of_job.values(state=state, started_at=begun, finished_at=ended))
    return Rows(owner, names, jobs)


@pytest.mark.parametrize(
    ("by", "descending", "found"),
    [
        ("name", False, [2, 0, 3, 1]),
        ("name", True, [1, 3, 0, 2]),
        ("reduction", False, [0, 3, 2, 1]),
        ("reduction", True, [2, 3, 0, 1]),
        ("verdict", False, [2, 3, 0, 1]),
        ("created", False, [0, 1, 2, 3]),
    ],
)
def test_variants(database: Database, rows: Rows, by: str, descending: bool, found: list[int]) -> None:
    ids = orders.ordered(
        filters.variants(rows.owner.tenant_id, Filters()), Variant, orders.VARIANTS[by], descending=descending
    )
    with database.read() as session:
        assert page_of(session, ids, 1, 9) == ([rows.variants[index] for index in found], False)


@pytest.mark.parametrize(
    ("by", "descending", "found"),
    [
        ("name", False, [2, 0, 3, 1]),
        ("took", True, [2, 0, 3, 1]),
        ("took", False, [3, 0, 2, 1]),
        ("state", False, [3, 1, 2, 0]),
    ],
)
def test_jobs_page_by_page(database: Database, rows: Rows, by: str, descending: bool, found: list[int]) -> None:
    mine = filters.jobs(rows.owner.tenant_id, Filters())
    ids = orders.ordered(mine, Job, orders.JOBS[by], descending=descending)
    wanted = [rows.jobs[index] for index in found]
    with database.read() as session:
        assert [page_of(session, ids, number, 3) for number in (1, 2, 3)] == [
            (wanted[:3], True),
            (wanted[3:], False),
            ([], False),
        ]
        assert [job.id for job in orders.rows_of(session, mine, Job, [*wanted[::-1], "job_none"])] == wanted[::-1]


def test_base_models_of_more_parameters_than_four_bytes_count(database: Database, rows: Rows) -> None:
    with database.write() as session:
        for name, parameters, family in (("org/x", 7e10, "llama"), ("org/y", 7e9, "qwen")):
            facts = {"parameters": int(parameters), "geometry": {"family": family}}
            session.add(BaseModel(tenant_id=rows.owner.tenant_id, repo_id=name, revision="0" * 40, facts=facts))

    def names(by: str, wanted: Filters = Filters(), *, descending: bool = False) -> list[str]:
        mine = filters.base_models(rows.owner.tenant_id, wanted)
        ids = orders.ordered(mine, BaseModel, orders.BASE_MODELS[by], descending=descending)
        with database.read() as session:
            found = orders.rows_of(session, mine, BaseModel, page_of(session, ids, 1, 9)[0])
        return [row.repo_id for row in found]

    assert names("parameters", descending=True) == ["org/x", "org/y", "org/base"]
    assert names("family") == ["org/x", "org/y", "org/base"]
    assert names("name", Filters(search="QW")) == ["org/y"]

"""Queries of tenants' tables live in one place, and whoever puts one elsewhere is told where."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.one_place import faults

MODELS = "from publisher.store.models import Job\n"


def test_queries_live_in_store_and_jobs_alone() -> None:
    assert faults() == []


@pytest.mark.parametrize(
    "planted",
    [
        "from sqlalchemy import select\nselect(1)\n",
        "from sqlalchemy.sql import delete as gone\n",
        "import sqlalchemy as sa\n",
        f"{MODELS}def read(session, id):\n    return session.get(Job, id)\n",
        f"{MODELS}def read(whatever, id):\n    return whatever.get(Job, id)\n",
        f"{MODELS}def read(session, id):\n    return session.get_one(Job, id)\n",
        "def read(session, statement):\n    return session.scalars(statement)\n",
        "def drop(session, row):\n    session.delete(row)\n",
        f"{MODELS}from publisher.store.tenancy import readable_by\nreadable_by('ten', Job).where(Job.id == '')\n",
    ],
)
@pytest.mark.parametrize("room", ["publisher/api", "publisher/dashboard", "publisher/client/admin", "worker/jobs"])
def test_one_elsewhere_is_found(tmp_path: Path, room: str, planted: str) -> None:
    for folder in (room, "publisher/store", "publisher/jobs"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "queries.py").write_text(planted)
    found = faults(tmp_path)
    assert found
    assert all(fault.startswith(f"{room}/queries.py:") for fault in found)


@pytest.mark.parametrize("harmless", ["import torch\ntorch.where(1, 2, 3)\n", "{}.get('job')\n", "set().update([1])\n"])
def test_what_only_looks_like_one_is_none(tmp_path: Path, harmless: str) -> None:
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "numbers.py").write_text(harmless)
    assert faults(tmp_path) == []

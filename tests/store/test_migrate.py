"""The migrations make the tables that the models describe, on both databases."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import JSON, Boolean, Column, Connection, Engine, Float, MetaData, inspect, select, text
from sqlalchemy import Table as SomeTable
from sqlalchemy.engine import make_url
from sqlalchemy.types import Integer

from migrations.versions import r0008_event_numbers
from publisher.jobs import events, service, transitions
from publisher.keys.digests import KeyDigests
from publisher.keys.scopes import ALL
from publisher.recipe.stored import stored_recipe
from publisher.recipe.versions import version_of
from publisher.store import keys, migrate
from publisher.store.database import Database, create_database_engine
from publisher.store.models import ApiKey, Job, JobEvent, MetricPoint, Table, Tenant, Variant, Worker
from publisher.store.states import JobState
from publisher.store.variant_content import recipe_of
from tests.jobs.rows import add_job, claim, metric, report
from tests.manifest import contents
from tests.recipe.history import HISTORY


def test_migrated_tables_are_those_of_the_models(database: Database) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []


def test_upgrading_again_changes_nothing(database: Database, database_url: str) -> None:
    migrate.upgrade(database_url)
    assert set(inspect(database.engine).get_table_names()) == {*Table.metadata.tables, "alembic_version"}


def test_workers_of_before_are_as_fast_in_fp32_until_they_measure_it(database: Database, database_url: str) -> None:
    migrate.downgrade(database_url, "0001")
    columns = "id, device, flops_per_second, memory_bytes, seen_at"
    with database.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO workers ({columns}) VALUES ('w', 'cpu', 1e9, 1, 0)"))
    migrate.upgrade(database_url)
    with database.read() as session:
        assert session.get_one(Worker, "w").fp32_flops_per_second == 1e9


def test_recipes_of_before_state_the_version_that_they_were_written_by(database: Database, database_url: str) -> None:
    migrate.downgrade(database_url, "0002")
    with database.engine.begin() as connection:
        _insert(connection, "tenants", {"id": "ten", "name": "t", "created_at": 0})
        facts = {"repo_id": "org/base", "revision": "c", "facts": "{}"}
        _insert(connection, "base_models", {"id": "base", "tenant_id": "ten", "created_at": 0} | facts)
        for number, stored in enumerate(HISTORY):
            row = {"id": f"var_{number:03}", "tenant_id": "ten", "base_model_id": "base", "created_at": 0}
            digests = {"recipe_digest": "0", "request_digest": "0", "publish_repo_id": "org/x"}
            asked = {"recipe": json.dumps(stored.recipe), "publish_private": False}
            _insert(connection, "variants", row | digests | asked)
    migrate.upgrade(database_url)
    with database.read() as session:
        rows = session.scalars(select(Variant).order_by(Variant.id)).all()
        for row, stored in zip(rows, HISTORY, strict=True):
            # a part that is left out tells nothing of the versions that only changed it, nor do they change the recipe
            assert row.recipe_version == version_of(stored.recipe) >= stored.version
            assert recipe_of(row) == stored_recipe(stored.recipe, stored.version)
    migrate.downgrade(database_url, "0002")
    assert "recipe_version" not in {column["name"] for column in inspect(database.engine).get_columns("variants")}


def test_series_of_before_are_what_the_events_say(database: Database, database_url: str) -> None:
    job_id = report(database, *[metric("loss", step % 900, float(step)) for step in range(1000)], metric("lr", 1, None))
    with database.read() as session:
        before = session.scalars(select(MetricPoint).order_by(MetricPoint.name, MetricPoint.step)).all()
    migrate.downgrade(database_url, r0008_event_numbers.down_revision)
    migrate.upgrade(database_url)
    with database.read() as session:
        after = session.scalars(select(MetricPoint).order_by(MetricPoint.name, MetricPoint.step)).all()
        assert session.get_one(Tenant, session.get_one(Job, job_id).tenant_id).event_seq == 0
    columns = [column.name for column in MetricPoint.__table__.columns]
    assert [[getattr(row, name) for name in columns] for row in after] == [
        [getattr(row, name) for name in columns] for row in before
    ]
    # events of before have no number; those that come begin the tenant's count
    with database.write() as session:
        events.move(session, job_id, JobState.CANCELLED, only_from=[JobState.RUNNING])
    with database.read() as session:
        assert [row.number for row in session.scalars(select(JobEvent).where(JobEvent.number.is_not(None)))] == [1]


@pytest.mark.parametrize(
    ("certificate", "said"),
    [
        (contents.certificate(), "passed"),
        (contents.certificate(80.0), "failed"),
        (contents.certificate(differences={}), "not_stated"),
        (
            contents.certificate(differences={"novel": {"documents": 7, "mean": 1.0, "standard_error": 0.1}}),
            "inconclusive",
        ),
        (
            contents.certificate(differences={"novel": {"documents": 9, "mean": 0.1, "standard_error": 0.1}}),
            "not_significant",
        ),
        (
            contents.certificate(differences={"novel": {"documents": 9, "mean": 5e-4, "standard_error": 1e-5}}),
            "negligible",
        ),
        (None, None),
    ],
)
def test_variants_of_before_are_sorted_by_what_their_manifests_say(
    database: Database, database_url: str, certificate: dict[str, Any] | None, said: str | None
) -> None:
    lease = claim(database, add_job(database))
    manifest = contents.content(evaluation=contents.evaluation() | {"certificate": certificate})
    with database.write() as session:
        transitions.succeed(session, lease, {}, manifest, [])
    with database.read() as session:
        before = session.scalars(select(Variant)).one()
    migrate.downgrade(database_url, "0017")
    migrate.upgrade(database_url)
    with database.read() as session:
        after = session.scalars(select(Variant)).one()
    assert (after.reduction, after.verdict) == (before.reduction, before.verdict) == (134_515_008 / 84_015_360, said)


def test_of_keys_of_before_each_tenants_oldest_that_works_is_its_first(database: Database, database_url: str) -> None:
    migrate.downgrade(database_url, "0008")
    rows = {"key_1": ("a", 9.0), "key_2": ("a", None), "key_3": ("a", None), "key_4": ("b", None)}
    with database.engine.begin() as connection:
        for tenant in ("a", "b"):
            _insert(connection, "tenants", {"id": tenant, "name": tenant, "created_at": 0})
        for id, (tenant, revoked) in rows.items():
            key = {"id": id, "tenant_id": tenant, "name": id, "prefix": id, "digest": id, "created_at": 0}
            _insert(connection, "api_keys", key | {"revoked_at": revoked})
    migrate.upgrade(database_url)
    with database.read() as session:
        makers = {key.id: key.created_by for key in session.scalars(select(ApiKey))}
    assert makers == {"key_1": "key_2", "key_2": None, "key_3": "key_2", "key_4": None}


def test_keys_of_before_keep_all_rights_and_their_digests(database: Database, database_url: str) -> None:
    migrate.downgrade(database_url, "0010")
    digest = hashlib.sha256(b"loram_before").hexdigest()
    with database.engine.begin() as connection:
        _insert(connection, "tenants", {"id": "ten", "name": "a", "created_at": 0})
        key = {"id": "key", "tenant_id": "ten", "name": "k", "prefix": "p", "digest": digest, "created_at": 0}
        _insert(connection, "api_keys", key)
    migrate.upgrade(database_url)
    with database.read() as session:
        found = keys.key_and_tenant(session, "loram_before", KeyDigests([b"s" * 32]))
        assert found is not None
        row, tenant = found
    assert (row.rights, row.expires_at) == (ALL, None)
    assert (tenant.suspended_at, tenant.local_roots) == (None, None)


def test_the_version_before_knows_every_state_that_a_downgrade_leaves(database: Database, database_url: str) -> None:
    paused, pausing, unsettled = (add_job(database) for _ in range(3))
    with database.write() as session:
        service.pause(session, paused)
    claim(database, pausing)
    with database.write() as session:
        service.pause(session, pausing)
        events.move(session, unsettled, JobState.CANCELLING, only_from=[JobState.QUEUED])
    migrate.downgrade(database_url, "0003")
    with database.engine.connect() as connection:
        rows = connection.execute(text("SELECT id, state, finished_at, lease_expires_at FROM jobs"))
        found = {id: (state, finished_at is not None, lease is not None) for id, state, finished_at, lease in rows}
    assert found == {
        paused: ("cancelled", True, False),
        pausing: ("running", False, True),
        unsettled: ("cancelling", False, True),
    }


def _insert(connection: Connection, table: str, row: Mapping[str, object]) -> None:
    values = ", ".join(f":{name}" for name in row)
    connection.execute(text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})"), row)


def test_downgrade_removes_every_table(database: Database, database_url: str) -> None:
    migrate.downgrade(database_url, "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    migrate.upgrade(database_url)
    assert "jobs" in inspect(database.engine).get_table_names()


def test_processes_that_upgrade_at_once_do_not_disturb_each_other(empty_database_url: str) -> None:
    script = "import sys; from publisher.store import migrate; migrate.upgrade(sys.argv[1])"
    command = [sys.executable, "-c", script, empty_database_url]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    outcomes = [(process.communicate()[1], process.returncode) for process in processes]
    assert [code for _, code in outcomes] == [0, 0, 0], outcomes


def test_other_databases_are_refused_with_the_supported_ones() -> None:
    with pytest.raises(ValueError, match=r"'mysql'.*sqlite.*postgresql.*PUBLISHER_DATABASE_URL"):
        Database("mysql://localhost/x")


def test_migrating_is_a_step_of_its_own_whose_password_lies_in_a_file(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(postgresql_url)
    (tmp_path / "password").write_text(f"{url.password or 'none is asked for'}\n")
    monkeypatch.setenv("PUBLISHER_DATABASE_URL", url._replace(password=None).render_as_string())
    monkeypatch.setenv("PUBLISHER_DATABASE_PASSWORD_FILE", str(tmp_path / "password"))
    subprocess.run([sys.executable, "-m", "publisher.store.migrate"], check=True)
    database = Database(postgresql_url)
    assert set(inspect(database.engine).get_table_names()) == {*Table.metadata.tables, "alembic_version"}
    database.close()


def revisions() -> list[str]:
    """From the first to the newest."""
    found = ScriptDirectory(str(migrate._scripts())).walk_revisions()
    return [script.revision for script in found][::-1]


def filled(connection: Connection) -> dict[str, dict[str, Any]]:
    """One row in every table that there is at this revision, whatever its columns; table → row."""
    metadata = MetaData()
    metadata.reflect(connection)
    rows = {}
    for table in metadata.sorted_tables:
        if table.name == "alembic_version":
            continue
        row = {column.name: _value(table, column) for column in table.columns}
        connection.execute(table.insert(), row)
        rows[table.name] = row
    return rows


_STATES = {("jobs", "state"): "queued", ("webhook_deliveries", "state"): "pending"}


def _value(table: SomeTable, column: Column[Any]) -> Any:
    for key in column.foreign_keys:
        return f"{key.column.table.name}-{key.column.name}"
    if isinstance(column.type, JSON):
        return {"text": "ü", "number": 0.1}
    if isinstance(column.type, Boolean):
        return True
    if isinstance(column.type, Float):
        return 1234.5
    if isinstance(column.type, Integer):
        return 7
    return _STATES.get((table.name, column.name), f"{table.name}-{column.name}")


def stored(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    metadata = MetaData()
    with engine.connect() as connection:
        metadata.reflect(connection)
        return {
            table.name: [dict(row) for row in connection.execute(table.select()).mappings()]
            for table in metadata.sorted_tables
            if table.name != "alembic_version"
        }


@pytest.mark.parametrize("revision", revisions())
def test_rows_of_every_revision_survive_the_way_up_and_back(empty_database_url: str, revision: str) -> None:
    """What was there keeps its values; columns that are new have some, since the models read every row."""
    migrate.upgrade(empty_database_url, revision)
    engine = create_database_engine(empty_database_url)
    try:
        with engine.begin() as connection:
            rows = filled(connection)
        before = stored(engine)
        migrate.upgrade(empty_database_url)
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
        after = stored(engine)
        for table in rows:
            assert before[table][0].items() <= after[table][0].items()
        _read_by_the_models(empty_database_url, rows.keys())
        migrate.downgrade(empty_database_url, revision)
        assert stored(engine) == before
    finally:
        engine.dispose()


def _read_by_the_models(url: str, filled: Collection[str]) -> None:
    database = Database(url)
    try:
        with database.read() as session:
            for mapper in Table.registry.mappers:
                table = mapper.class_.__tablename__
                assert len(session.query(mapper.class_).all()) == (1 if table in filled else 0), table
    finally:
        database.close()


def test_rows_that_referred_to_nothing_before_do_not_stop_a_migration(tmp_path: Path) -> None:
    """The check is of what the migration does."""
    url = f"sqlite:///{tmp_path / 'publisher.db'}"
    migrate.upgrade(url, "0001")
    engine = create_database_engine(url)
    with engine.begin() as connection:
        filled(connection)
    engine.dispose()
    with sqlite3.connect(tmp_path / "publisher.db") as by_hand:  # which enforces no foreign keys
        by_hand.execute("DELETE FROM jobs")
    migrate.upgrade(url)
    assert len(stored(create_database_engine(url))["job_events"]) == 1


def test_a_migration_that_breaks_references_is_undone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'publisher.db'}"
    migrate.upgrade(url)
    engine = create_database_engine(url)
    with engine.begin() as connection:
        filled(connection)

    def work(config: Config) -> None:
        config.attributes["connection"].execute(text("DELETE FROM jobs"))
        command.downgrade(config, "0002")

    with pytest.raises(RuntimeError, match="rows that refer to nothing, in job_events"):
        migrate._run(url, work)
    kept = stored(engine)
    assert len(kept["jobs"]) == 1
    assert "recipe_version" in kept["variants"][0]
    engine.dispose()

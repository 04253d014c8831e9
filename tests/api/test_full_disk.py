"""A disk that is full is named; what only reads is still answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import event, text

from tests.api.conftest import RunningApi, refused, serve_api

_FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON api_keys FOR EACH ROW EXECUTE FUNCTION full_disk();
"""


def write_until_refused(client: httpx.Client) -> httpx.Response:
    for _ in range(500):
        answer = client.post("/v1/api-keys", json={"name": "x" * 100})
        if not answer.is_success:
            break
    return answer


def still_reads(api: RunningApi, client: httpx.Client) -> bool:
    return client.get("/v1/jobs").is_success and httpx.get(f"{api.url}/readyz").json()["database"] == "ok"


def test_a_full_disk_under_sqlite_is_507_and_named(tmp_path: Path) -> None:
    with serve_api(tmp_path) as api, api.tenant().client() as client:

        @event.listens_for(api.database.engine, "checkout")
        def limit(connection: Any, *others: object) -> None:
            connection.execute("PRAGMA max_page_count = 1")  # as many as there are

        said = refused(write_until_refused(client), 507)
        assert f"The disk under {api.settings.data_dir.absolute()} is full" in said
        assert still_reads(api, client)


def test_a_full_disk_of_the_database_server_is_507_and_named(tmp_path: Path, postgresql_url: str) -> None:
    with serve_api(tmp_path, database_url=postgresql_url) as api, api.tenant().client() as client:
        with api.database.engine.begin() as connection:
            connection.execute(text(_FULL))
        assert "database server" in refused(write_until_refused(client), 507)
        assert still_reads(api, client)


def test_a_hub_whose_database_is_away_says_so(tmp_path: Path, postgresql_url: str) -> None:
    with serve_api(tmp_path, database_url=postgresql_url) as api, api.tenant().client() as client:
        with api.database.engine.begin() as connection:
            connection.execute(text("ALTER TABLE api_keys RENAME TO hidden"))
            connection.execute(
                text(
                    "CREATE FUNCTION away() RETURNS text LANGUAGE plpgsql AS "
                    "$$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '57P03'; END $$"
                )
            )
            connection.execute(
                text(
                    "CREATE VIEW api_keys AS SELECT id, tenant_id, away() AS digest, revoked_at, name, prefix, "
                    "created_at, created_by, scopes, expires_at, last_used_at, secret_id FROM hidden"
                )
            )
        answer = client.get("/hub/api/whoami-v2")
        assert answer.status_code == 503, answer.text
        assert "The database does not answer" in answer.json()["error"]

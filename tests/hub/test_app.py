"""The Hub as an application of its own: at the root of a host, with the service's keys."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from publisher.errors import RequestFault
from publisher.hub.app import create_app
from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.keys import ensure_first_key
from tests.servers import serve

KEY = "loram_key-of-the-hub-app"


def settings_of(tmp_path: Path, **more: str) -> Settings:
    """A service that has started once."""
    settings = Settings(data_dir=tmp_path, **more)
    migrate.upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    ensure_first_key(database, KEY)
    database.close()
    return settings


@pytest.mark.parametrize(
    ("configured", "host", "expected"),
    [
        (None, "127.0.0.1", "http://127.0.0.1:{port}/default/x"),
        (None, "hub.lan", "http://hub.lan:{port}/default/x"),
        # what `up` sets must not lead other machines of the network to themselves
        ("http://127.0.0.1:1", "hub.lan", "http://hub.lan:{port}/default/x"),
        ("http://loram.localhost:1", "hub.lan", "http://hub.lan:{port}/default/x"),
        ("https://hub.example.org", "10.0.0.7", "https://hub.example.org/default/x"),
    ],
)
def test_addresses_in_answers_are_those_that_the_client_can_reach(
    tmp_path: Path, configured: str | None, host: str, expected: str
) -> None:
    more = {} if configured is None else {"hub_url": configured}
    with serve(create_app(settings_of(tmp_path, **more))) as port:
        answer = httpx.post(
            f"http://127.0.0.1:{port}/api/repos/create",
            headers={"Authorization": f"Bearer {KEY}", "Host": f"{host}:{port}"},
            json={"name": "x"},
        )
        assert answer.json()["url"] == expected.format(port=port)
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").json() == {"status": "ok"}


def test_bodies_may_be_as_large_as_under_the_api(tmp_path: Path) -> None:
    with serve(create_app(settings_of(tmp_path))) as port:
        endpoint, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {KEY}"}
        httpx.post(f"{endpoint}/api/repos/create", headers=headers, json={"name": "x"})
        content = '{"key": "header", "value": {"summary": "s"}}\n' + "".join(
            f'{{"key": "file", "value": {{"path": "{n}", "content": "{"x" * 9_000_000}", "encoding": "utf-8"}}}}\n'
            for n in range(2)
        )
        answer = httpx.post(f"{endpoint}/api/models/default/x/commit/main", headers=headers, content=content)
        assert answer.status_code == 200


def test_where_checkpoints_go_elsewhere_there_is_no_hub_to_serve(tmp_path: Path) -> None:
    with pytest.raises(RequestFault, match="PUBLISHER_HUB_ENDPOINT is https://huggingface"):
        create_app(Settings(data_dir=tmp_path, hub_endpoint="https://huggingface.co"))

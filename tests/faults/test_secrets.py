"""Secrets are planted, a Hub fails and quotes them, and afterwards nothing that anybody keeps or sees holds one."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
import redis
from fastapi import FastAPI
from huggingface_hub import HfApi
from sqlalchemy import update

from publisher.hub.app import service_hub
from publisher.hub.storage import HubStorage
from publisher.settings import Settings
from publisher.store import keys, migrate
from publisher.store.database import Database
from publisher.store.models import Job
from publisher.store.states import JobState
from tests import servers
from tests.faults.installation import KEY, Installation
from tests.faults.planted import Sightings, TalkativeHub
from tests.models import tiny_llama

#: each setting's own; characters that an address has to quote, as passwords have them
SETTINGS = {
    name: f"{secrets.token_urlsafe(9)}{more}{secrets.token_urlsafe(12)}"
    for name, more in {
        "SECRET": "-",
        "OLD_SECRETS": "-",
        "ENCRYPTION_KEY": "-",
        "OLD_ENCRYPTION_KEYS": "-",
        "HUB_TOKEN": "-",
        "BASE_MODEL_TOKEN": "-",
        "DATABASE_PASSWORD": "@:/?#",
        "BROKER_PASSWORD": "@:/?#",
    }.items()
}
TENANTS, READS = f"hf_{secrets.token_urlsafe(16)}", f"hf_{secrets.token_urlsafe(16)}"
PLANTED = {**SETTINGS, "API key": KEY, "tenant's write token": TENANTS, "tenant's read token": READS}
BEFORE_WORK, COMMIT = "/api/whoami-v2", "/commit/"


@dataclass
class Site:
    installation: Installation
    hub: TalkativeHub
    hub_url: str
    broker: redis.Redis


@pytest.fixture(scope="module")
def site(postgresql_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("secrets")
    with ExitStack() as running:
        hub, hub_url = _start_hub(running, tmp_path_factory.mktemp("hub"))
        with psycopg.connect(postgresql_server, autocommit=True) as connection:
            connection.execute("CREATE DATABASE planted")
        broker_url = running.enter_context(servers.redis_server(tmp_path_factory.mktemp("redis")))
        with redis.Redis.from_url(broker_url) as client:  # not by its command line, which everybody sees
            client.config_set("requirepass", SETTINGS["BROKER_PASSWORD"])
        broker = running.enter_context(redis.Redis.from_url(broker_url, password=SETTINGS["BROKER_PASSWORD"]))
        changes = {
            **SETTINGS,
            "HUB_ENDPOINT": hub_url,
            "BASE_MODEL_ENDPOINT": hub_url,
            "ALLOW_PRIVATE_ADDRESSES": "true",
            "MAX_ATTEMPTS": 50,
        }
        database_url = postgresql_server.replace("/postgres", "/planted")
        installation = Installation.create(folder, database_url, broker_url, changes)
        running.callback(installation.stop)
        installation.start_api()
        yield Site(installation, hub, hub_url, broker)


def _start_hub(running: ExitStack, folder: Path) -> tuple[TalkativeHub, str]:
    """One that knows the planted tokens, and holds a base model that only they may read."""
    settings = Settings(data_dir=folder / "data")
    migrate.upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    running.callback(database.close)
    with database.write() as session:
        tenant = keys.add_tenant(session, "org").id
        for token in (SETTINGS["HUB_TOKEN"], SETTINGS["BASE_MODEL_TOKEN"], TENANTS, READS):
            keys.add_key(session, tenant, "planted", token)
    app = FastAPI()
    app.mount("/hub", service_hub(settings, database, HubStorage(settings.hub_dir), None))
    hub = TalkativeHub(app)
    url = f"http://127.0.0.1:{running.enter_context(servers.serve(hub))}/hub"
    api = HfApi(endpoint=url, token=TENANTS)
    api.create_repo("org/base", private=True)
    api.upload_folder(folder_path=tiny_llama(folder / "base"), repo_id="org/base")
    return hub, url


def _ask(site: Site, found: Sightings, method: str, path: str, **more: object) -> httpx.Response:
    """Whatever is answered is looked at, with its headers."""
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx.request(method, f"{site.installation.url}{path}", headers=headers, timeout=240, **more)  # type: ignore[arg-type]
    found.look(f"answer to {method} {path}", f"{answer.headers}\n{answer.text}")
    return answer


def _make_due(site: Site) -> None:
    """What waits is tried at once."""
    with site.installation.database.write() as session:
        waits = [Job.state == JobState.QUEUED, Job.claimable_at > 0.0]
        session.execute(update(Job).where(*waits).values(claimable_at=0.0, dispatched_at=None))


def _run(site: Site, found: Sightings, job_id: str, seconds: float = 500) -> set[str]:
    """To its end, looking at processes and messages meanwhile; what it waited for."""
    deadline, waited = time.monotonic() + seconds, set[str]()
    while not (job := site.installation.job(job_id)).state.finished:
        assert time.monotonic() < deadline, (job.state, job.waiting, site.hub.faults, site.installation.log("w1"))
        if job.waiting is not None and job.claimable_at > 0:
            waited.add(job.waiting["kind"])
            _make_due(site)
        found.look_at_processes(site.installation.processes)
        found.look_into_redis(site.broker)
        time.sleep(0.3)
    assert job.state is JobState.SUCCEEDED, job.failure
    return waited


@pytest.mark.long
@pytest.mark.timeout(900)
def test_no_secret_shows_up_anywhere_while_a_hub_fails(site: Site) -> None:
    found, installation = Sightings(PLANTED), site.installation
    base = _ask(site, found, "POST", "/v1/base-models", json={"repo_id": "org/base"})
    assert base.status_code == 201, base.text
    installation.base_model_id = base.json()["id"]
    (installation.folder / "text.jsonl").write_text('{"text": "the ship and the sea and the whale"}\n' * 200)
    corpus = {"name": "text", "path": str(installation.folder / "text.jsonl")}
    assert _ask(site, found, "POST", "/v1/corpora", json=corpus).status_code == 201
    # with the service's token, then with the tenant's; nobody takes the job yet, so that its message can be read
    job_ids = [installation.make_variant("org/first", tokens=128)]
    assert found.look_into_redis(site.broker) > 0
    site.hub.faults += [(BEFORE_WORK, 401), (BEFORE_WORK, "junk"), ("/preupload/", 500), (COMMIT, "lost")]
    installation.start_worker()
    assert _run(site, found, job_ids[0]) == {"credential", "hub"}
    assert site.hub.faults == []

    own = {"endpoint": site.hub_url.replace("127.0.0.1", "localhost"), "write_token": TENANTS, "read_token": READS}
    for fault, status in ((401, 422), (500, 503), ("junk", 422), (None, 200)):
        site.hub.faults += [] if fault is None else [(BEFORE_WORK, fault)]
        assert _ask(site, found, "PUT", "/v1/hub-credentials", json=own).status_code == status
    for wrong in ({**own, "write_token": f"{TENANTS} "}, {**own, "token": READS}, [TENANTS], TENANTS):
        assert _ask(site, found, "PUT", "/v1/hub-credentials", json=wrong).status_code == 422
    site.hub.faults += [(BEFORE_WORK, 500), (COMMIT, 401), (COMMIT, "lost")]
    job_ids.append(installation.make_variant("org/second", tokens=128))
    assert _run(site, found, job_ids[1]) == {"credential", "hub"}
    assert site.hub.faults == []
    assert {SETTINGS["HUB_TOKEN"], SETTINGS["BASE_MODEL_TOKEN"], TENANTS} <= site.hub.tokens  # they were in use

    for job_id in job_ids:
        for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/log", f"/v1/jobs/{job_id}/metrics"):
            assert _ask(site, found, "GET", path).status_code == 200
    for path in (
        "/v1/hub-credentials",
        "/v1/variants",
        "/v1/jobs",
        "/v1/workers",
        "/metrics",
        "/readyz",
        "/openapi.json",
    ):
        assert _ask(site, found, "GET", path).status_code == 200
    site.hub.faults.append(("/api/models/org/second", 500))
    _ask(site, found, "DELETE", f"/v1/variants/{installation.job(job_ids[1]).variant_id}?publication=delete")
    assert found.look_into_redis(site.broker) > 0
    assert found.look_into_database(installation.database) > 100
    assert found.look_into_files(installation.folder) > 10
    logs = [installation.log("api"), installation.log("w1")]
    assert all("Traceback" in log or "info" in log.lower() for log in logs)  # there is something to look through
    assert dict(found.seen) == {}


def test_tenants_tokens_are_in_no_environment(site: Site) -> None:
    found = Sightings({"write": TENANTS, "read": READS})
    family = [member for process in site.installation.processes for member in process.children(recursive=True)]
    for member in [*site.installation.processes, *family]:
        found.look("environment", repr(psutil.Process(member.pid).environ()))
    assert dict(found.seen) == {}


def test_settings_show_no_secret(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Sightings(SETTINGS)
    for name, value in site.installation.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.secret_bytes().decode() == SETTINGS["SECRET"]
    shown = [settings, settings.model_dump(), settings.signing_secrets(), settings.sealing_secrets()]
    for each in [*shown, settings.model_dump_json()]:
        found.look("settings", f"{each} {each!r}")
    database = Database(settings.resolved_database_url)
    found.look("database", f"{database.engine!r} {database.engine.url} {database.engine.url!r}")
    database.close()
    assert dict(found.seen) == {}


WRONG = {
    "DATABASE_URL": "mysql://publisher:{}@db/publisher",
    "BROKER_URL": "redis://:{}@broker:no-port/0",
    "PUBLIC_URL": "ftp://publisher:{}@service",
    "HUB_ENDPOINT": "https://publisher:{}@hub",
    "HUB_TOKEN": "{}\nand more",
    "BASE_MODEL_TOKEN": "{} and more",
    "LOCAL_ROOTS": "{}",
    "LEASE_SECONDS": "{}",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_named_and_not_shown(name: str, tmp_path: Path) -> None:
    """A secret in the wrong place is still one."""
    secret = secrets.token_urlsafe(16)
    environment = os.environ | {
        "PUBLISHER_DATA_DIR": str(tmp_path),
        f"PUBLISHER_{name}": WRONG[name].format(secret),
    }
    program = "from publisher.settings import settings; print(settings())"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0, done.stdout
    assert name.lower() in done.stderr.lower()
    assert secret not in done.stdout + done.stderr

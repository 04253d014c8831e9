"""The audit log: every change that succeeded has its row, with who did it and from where, and no other has."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError

from publisher.app import create_app
from publisher.jobs import transitions
from publisher.jobs.leases import claim
from publisher.settings import Settings
from publisher.store import audit
from publisher.store.database import Database
from publisher.store.models import AuditEntry
from tests.api.conftest import Body, RunningApi, Tenant, created, refused

Row = dict[str, Any]
#: RFC 6761: a name that nobody has
NOWHERE = "https://receiver.invalid/hook"


@dataclass(frozen=True)
class Scene:
    """What the calls are made on."""

    api: RunningApi
    tenant: Tenant
    client: httpx.Client
    body: Body

    def variant(self) -> Body:
        return created(self.client.post("/v1/variants", json=self.body))

    def job(self, *acts: str) -> str:
        job_id = str(self.variant()["job"]["id"])
        for act in acts:
            self.client.post(f"/v1/jobs/{job_id}/{act}").raise_for_status()
        return job_id

    def sweep(self) -> str:
        return str(created(self.client.post("/v1/sweeps", json=self.sweep_body()))["id"])

    def sweep_body(self) -> Body:
        publish = self.body["publish"] | {"repo_id": f"{self.tenant.name}/tiny-{{ratio}}"}
        return {**self.body, "publish": publish, "vary": {"pruning.ratio": [0.4, 0.5]}}

    def emptied_sweep(self) -> str:
        id = self.sweep()
        self.client.post(f"/v1/sweeps/{id}/cancel").raise_for_status()
        for variant in self.client.get("/v1/variants", params={"sweep_id": id}).json()["items"]:
            self.client.delete(f"/v1/variants/{variant['id']}").raise_for_status()
        return id

    def ended_variant(self) -> str:
        variant = self.variant()
        self.client.post(f"/v1/jobs/{variant['job']['id']}/cancel").raise_for_status()
        return str(variant["id"])

    def unused_base_model(self) -> str:
        body = {"path": str(self.api.roots / "tiny"), "published_as": f"org/{secrets.token_hex(4)}"}
        return str(created(self.client.post("/v1/base-models", json=body))["id"])

    def unused_corpus(self) -> str:
        body = {"name": f"c{secrets.token_hex(4)}", "path": str(self.api.roots / "novel.jsonl")}
        return str(created(self.client.post("/v1/corpora", json=body))["id"])

    def webhook(self) -> str:
        return str(created(self.client.post("/v1/webhooks", json={"url": NOWHERE}))["id"])

    def delivery(self) -> str:
        """Its webhook's id, and its own."""
        id = self.webhook()
        return f"{id}/{self.client.post(f'/v1/webhooks/{id}/test').raise_for_status().json()['id']}"

    def key(self) -> str:
        return str(created(self.client.post("/v1/api-keys", json={"name": "ci"}))["id"])


@pytest.fixture
def scene(api: RunningApi, tenant: Tenant, client: httpx.Client, variant_body: Body) -> Scene:
    return Scene(api, tenant, client, variant_body)


LABELS = {"labels": {"team": "ads"}}
Call = tuple[str, Callable[[Scene], str], Callable[[Scene], Any]]


def nothing(scene: Scene) -> str:
    return ""


def no_body(scene: Scene) -> None:
    return None


#: of every call that changes something: what is done, on what, and with which body
CALLS: dict[tuple[str, str], Call] = {
    ("post", "/v1/base-models"): (
        "base_model.register",
        nothing,
        lambda scene: {"path": str(scene.api.roots / "tiny"), "published_as": "org/other"},
    ),
    ("patch", "/v1/base-models/{id}"): ("base_model.label", Scene.unused_base_model, lambda scene: LABELS),
    ("delete", "/v1/base-models/{id}"): ("base_model.delete", Scene.unused_base_model, no_body),
    ("post", "/v1/corpora"): (
        "corpus.register",
        nothing,
        lambda scene: {"name": "other", "path": str(scene.api.roots / "novel.jsonl"), **LABELS},
    ),
    ("patch", "/v1/corpora/{id}"): ("corpus.label", Scene.unused_corpus, lambda scene: LABELS),
    ("delete", "/v1/corpora/{id}"): ("corpus.delete", Scene.unused_corpus, no_body),
    ("post", "/v1/variants"): ("variant.create", nothing, lambda scene: scene.body),
    ("patch", "/v1/variants/{id}"): ("variant.label", lambda scene: scene.variant()["id"], lambda scene: LABELS),
    ("delete", "/v1/variants/{id}"): ("variant.delete", Scene.ended_variant, no_body),
    ("post", "/v1/sweeps"): ("sweep.create", nothing, Scene.sweep_body),
    ("post", "/v1/sweeps/{id}/cancel"): ("sweep.cancel", Scene.sweep, no_body),
    ("delete", "/v1/sweeps/{id}"): ("sweep.delete", Scene.emptied_sweep, no_body),
    ("post", "/v1/jobs/{id}/cancel"): ("job.cancel", Scene.job, no_body),
    ("post", "/v1/jobs/{id}/pause"): ("job.pause", Scene.job, no_body),
    ("post", "/v1/jobs/{id}/resume"): ("job.resume", lambda scene: scene.job("pause"), no_body),
    ("post", "/v1/jobs/{id}/retry"): ("job.retry", lambda scene: scene.job("cancel"), no_body),
    ("delete", "/v1/jobs/{id}"): ("job.delete", lambda scene: scene.job("cancel"), no_body),
    ("post", "/v1/api-keys"): ("key.create", nothing, lambda scene: {"name": "ci"}),
    ("delete", "/v1/api-keys/{id}"): ("key.revoke", Scene.key, no_body),
    ("post", "/v1/webhooks"): ("webhook.create", nothing, lambda scene: {"url": NOWHERE}),
    ("patch", "/v1/webhooks/{id}"): ("webhook.change", Scene.webhook, lambda scene: {"description": "of ads"}),
    ("delete", "/v1/webhooks/{id}"): ("webhook.delete", Scene.webhook, no_body),
    ("post", "/v1/webhooks/{id}/rotate-secret"): ("webhook.rotate_secret", Scene.webhook, no_body),
    ("post", "/v1/webhooks/{id}/test"): ("webhook.test", Scene.webhook, no_body),
    ("post", "/v1/webhooks/{id}/deliveries/{delivery}/redeliver"): ("webhook.redeliver", Scene.delivery, no_body),
}
#: tests/api/test_hub_credentials.py: they take a Hub to ask
ELSEWHERE = {("put", "/v1/hub-credentials"), ("delete", "/v1/hub-credentials")}
#: POST, though it changes nothing
CHANGES_NOTHING = {("post", "/v1/plans")}


def rows_of(api: RunningApi, request_id: str) -> list[AuditEntry]:
    with api.database.read() as session:
        return list(session.scalars(select(AuditEntry).where(AuditEntry.request_id == request_id)))


def test_the_walk_knows_every_call_that_changes_something(settings: Settings) -> None:
    paths = create_app(settings).openapi()["paths"]
    writing = {(method, path) for path, methods in paths.items() for method in methods if method != "get"}
    assert writing - CHANGES_NOTHING - ELSEWHERE == set(CALLS)


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_what_succeeded_has_exactly_one_row(scene: Scene, method: str, path: str) -> None:
    action, prepare, body = CALLS[method, path]
    id, _, delivery = prepare(scene).partition("/")
    request_id, json = f"walk-{secrets.token_hex(8)}", body(scene)
    address = path.replace("{id}", id).replace("{delivery}", delivery)
    answer = scene.client.request(method, address, json=json, headers={"X-Request-Id": request_id})
    assert answer.is_success, answer.text
    resource = id or answer.json()["id"]
    rows = rows_of(scene.api, request_id)
    (row,) = [row for row in rows if row.action == action]
    assert (row.tenant_id, row.resource, row.actor, row.address) == (scene.tenant.id, resource, "key", "127.0.0.1")
    assert row.actor_id == row.key_id
    # sweeps have a row for each variant or job, too
    assert path.startswith("/v1/sweeps") or rows == [row]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_what_was_refused_has_none(scene: Scene, method: str, path: str) -> None:
    request_id = f"walk-{secrets.token_hex(8)}"
    address = path.replace("{id}", "nothing_0").replace("{delivery}", "nothing_0")
    answer = scene.client.request(
        method, address, json={"unknown": 1} if "{id}" not in path else None, headers={"X-Request-Id": request_id}
    )
    assert answer.is_client_error
    assert rows_of(scene.api, request_id) == []


def test_the_same_again_changes_nothing_and_leaves_no_row(scene: Scene) -> None:
    job_id, base = scene.job("cancel"), scene.unused_base_model()
    scene.client.patch(f"/v1/base-models/{base}", json=LABELS).raise_for_status()
    for number, (method, path, body) in enumerate(
        [("POST", f"/v1/jobs/{job_id}/cancel", None), ("PATCH", f"/v1/base-models/{base}", LABELS)]
    ):
        request_id = f"again-{number}-{secrets.token_hex(4)}"
        again = scene.client.request(method, path, json=body, headers={"X-Request-Id": request_id})
        assert again.is_success
        assert rows_of(scene.api, request_id) == []


def log_of(client: httpx.Client, **filters: Any) -> list[Row]:
    return list(client.get("/v1/audit", params=filters).raise_for_status().json()["items"])


def test_a_job_is_followed_from_its_request_to_its_end_and_after_its_deletion(scene: Scene) -> None:
    variant = scene.variant()
    job_id = str(variant["job"]["id"])
    for act in ("pause", "resume"):
        scene.client.post(f"/v1/jobs/{job_id}/{act}").raise_for_status()
    with scene.api.database.write() as session:
        lease = claim(session, job_id, "w1", 60)
        assert lease is not None
    publication = {"endpoint": scene.api.url, "repo_id": "org/tiny", "commit": "c" * 40}
    with scene.api.database.write() as session:
        transitions.succeed(session, lease, publication, {}, [])
    scene.client.delete(f"/v1/jobs/{job_id}").raise_for_status()
    told = log_of(scene.client, resource=job_id)
    acts = ["variant.create", "job.pause", "job.resume", "job.succeeded", "job.delete"]
    assert [row["action"] for row in reversed(told)] == acts
    (ended,) = [row for row in told if row["action"] == "job.succeeded"]
    assert (ended["actor"], ended["actor_id"], ended["related"]) == ("job", job_id, variant["id"])
    assert ended["details"] == {"worker": "w1", **publication}


def test_filters_narrow_the_log_down(scene: Scene) -> None:
    made = created(scene.client.post("/v1/api-keys", json={"name": "ci"}))
    with httpx.Client(base_url=scene.api.url, headers={"Authorization": f"Bearer {made['key']}"}) as other:
        corpus = created(other.post("/v1/corpora", json={"name": "x", "path": str(scene.api.roots / "novel.jsonl")}))
    (row,) = log_of(scene.client, key_id=made["id"])
    assert (row["action"], row["resource"]) == ("corpus.register", corpus["id"])
    assert {each["action"] for each in log_of(scene.client, action="key")} == {"key.create"}
    assert log_of(scene.client, action="key.cre") == []
    assert row not in log_of(scene.client, created_before=row["at"])
    assert row in log_of(scene.client, created_after=row["at"])
    assert log_of(scene.client, created_after=row["at"] + 60) == []


def test_pages_go_from_new_to_old(scene: Scene) -> None:
    whole = log_of(scene.client)
    first = scene.client.get("/v1/audit", params={"limit": 1}).json()
    second = scene.client.get("/v1/audit", params={"limit": 200, "cursor": first["next_cursor"]}).json()
    assert [*first["items"], *second["items"]] == whole
    refused(scene.client.get("/v1/audit", params={"cursor": f"job_{'0' * 22}"}), 422, "cursor")


def test_another_tenant_sees_nothing_of_it(scene: Scene, stranger: httpx.Client) -> None:
    job_id = scene.job()
    assert [row for row in log_of(stranger) if row["action"] != "key.create"] == []
    assert log_of(stranger, resource=job_id) == []


def test_no_key_and_no_token_is_in_the_log(scene: Scene) -> None:
    key = created(scene.client.post("/v1/api-keys", json={"name": "ci"}))["key"]
    scene.job("cancel")
    with scene.api.database.read() as session:
        kept = str([vars(row) for row in session.scalars(select(AuditEntry))])
    assert key not in kept
    assert scene.tenant.key not in kept


@pytest.fixture
def hub(scene: Scene) -> HfApi:
    return HfApi(endpoint=f"{scene.api.url}/hub", token=scene.tenant.key, library_name="loram-publisher")


def test_writes_to_the_embedded_hub_have_their_rows(scene: Scene, hub: HfApi) -> None:
    repo = f"{scene.tenant.name}/notes"
    hub.create_repo(repo)
    made = hub.upload_file(path_or_fileobj=b"text", path_in_repo="notes.txt", repo_id=repo)
    hub.upload_file(path_or_fileobj=b"text", path_in_repo="notes.txt", repo_id=repo)  # changes nothing
    hub.create_tag(repo, tag="v1")
    hub.delete_tag(repo, tag="v1")
    hub.update_repo_settings(repo, private=True)
    hub.delete_repo(repo)
    rows = list(reversed(log_of(scene.client, resource=repo)))
    assert [row["action"] for row in rows] == [
        "hub.create",
        "hub.commit",
        "hub.reference.create",
        "hub.reference.delete",
        "hub.settings",
        "hub.delete",
    ]
    assert rows[1]["details"]["commit"] == made.oid
    assert {row["actor"] for row in rows} == {"key"}
    assert all(row["request_id"] and row["address"] for row in rows)


def test_a_repository_that_a_variant_takes_back_is_told_with_the_key_that_asked(
    scene: Scene, hub: HfApi, tmp_path: Path
) -> None:
    """The work is done in a thread of its own."""
    repo = scene.body["publish"]["repo_id"]
    hub.create_repo(repo)
    commit = hub.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=repo).oid
    variant = scene.variant()
    with scene.api.database.write() as session:
        lease = claim(session, variant["job"]["id"], "w1", 60)
        assert lease is not None
        published = {
            "repo_id": repo,
            "commit": commit,
            "endpoint": scene.api.settings.resolved_hub_endpoint,
            "url": f"{scene.api.url}/hub/{repo}",
            "seconds": 1.0,
        }
        files = [transitions.PublishedFile("config.json", 2, "0" * 64)]
        transitions.succeed(session, lease, published, {}, files)
    scene.client.delete(f"/v1/variants/{variant['id']}", params={"publication": "delete"}).raise_for_status()
    (deleted,) = log_of(scene.client, action="hub.delete")
    (forgotten,) = log_of(scene.client, action="variant.delete")
    assert deleted["key_id"] == forgotten["key_id"] is not None
    assert deleted["request_id"] == forgotten["request_id"]


@pytest.fixture
def one_row(database: Database) -> Iterator[Database]:
    with database.write() as session:
        audit.record(session, "job.cancel", "job_1", tenant_id="ten_1")
    return database


def test_the_database_refuses_to_change_a_row(one_row: Database) -> None:
    with pytest.raises(DatabaseError, match="never changed"), one_row.write() as session:
        session.execute(text("UPDATE audit_log SET action = 'job.pause'"))


def test_a_change_that_is_rolled_back_leaves_no_row(database: Database) -> None:
    def fail() -> None:
        with database.write() as session:
            audit.record(session, "job.cancel", "job_1", tenant_id="ten_1")
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.read() as session:
        assert list(session.scalars(select(AuditEntry))) == []


def test_pruning_deletes_what_is_older_and_says_so(one_row: Database) -> None:
    with one_row.write() as session:
        assert audit.prune(session, before=4e9) == 1
        assert audit.prune(session, before=1.0) == 0
    with one_row.read() as session:
        rows = list(session.scalars(select(AuditEntry).order_by(AuditEntry.id)))
    assert sorted(row.details["rows"] for row in rows) == [0, 1]
    assert {(row.action, row.actor) for row in rows} == {("audit.prune", "operator")}

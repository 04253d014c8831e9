"""A tenant's own Hub: its tokens are tried, sealed and never answered; what waits for them goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text, update
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from publisher.jobs.waiting import Waiting, WaitKind
from publisher.store.keys import add_key, add_tenant
from publisher.store.models import Job
from tests.api.conftest import Body, RunningApi, Tenant, created, recipe, refused, serve_api, write_corpus
from tests.models import tiny_llama
from tests.servers import free_port, serve

WRITES, READS, WRONG = "hf_writes-0123456789", "hf_reads-0123456789", "hf_wrong-0123456789"
PATH = "/v1/hub-credentials"


def whoami(request: Request) -> Response:
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    role = {WRITES: "write", READS: "read"}.get(token)
    if role is None:
        return JSONResponse({"error": "Invalid token"}, status_code=401)
    return JSONResponse({"name": "org", "auth": {"accessToken": {"role": role}}})


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """Knows two tokens, under /hub; under /site it is no Hub, under /away redirects to one that is."""
    routes = [
        Route("/hub/api/whoami-v2", whoami),
        Route("/site/api/whoami-v2", lambda request: Response("<html>welcome</html>")),
        Route("/broken/api/whoami-v2", lambda request: Response(status_code=503)),
        Route("/away/api/whoami-v2", lambda request: RedirectResponse(f"http://localhost:{free_port()}/")),
    ]
    with serve(Starlette(routes=routes)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    """One that takes Hubs on this machine."""
    with serve_api(tmp_path_factory.mktemp("own"), allow_private_addresses=True) as running:
        tiny_llama(running.roots / "tiny")
        write_corpus(running.roots / "novel.jsonl")
        yield running


@pytest.fixture
def owner(service: RunningApi) -> Iterator[httpx.Client]:
    with service.tenant().client() as client:
        yield client


def body(hub: str, token: str = WRITES, **more: str) -> Body:
    return {"endpoint": f"{hub}/hub/", "write_token": token, **more}


def test_a_hub_is_set_shown_without_its_tokens_and_forgotten(owner: httpx.Client, hub: str) -> None:
    refused(owner.get(PATH), 404)
    answers = [owner.put(PATH, json=body(hub, read_token="hf_gated-models-9876")), owner.get(PATH)]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert WRITES not in answer.text
        assert "gated" not in answer.text
        shown = answer.json()
        assert shown["endpoint"] == f"{hub}/hub"
        assert (shown["write_token_end"], shown["read_token_end"]) == ("6789", "9876")
        assert shown["used_at"] is None
        assert shown["set_by"] in {key["id"] for key in owner.get("/v1/api-keys").json()["items"]}
    assert owner.put(PATH, json=body(hub)).json()["read_token_end"] is None
    assert owner.delete(PATH).status_code == 204
    refused(owner.get(PATH), 404)
    refused(owner.delete(PATH), 404)


def test_who_sets_and_forgets_it_is_in_the_audit_log(owner: httpx.Client, hub: str) -> None:
    owner.put(PATH, json=body(hub)).raise_for_status()
    owner.delete(PATH).raise_for_status()
    told = owner.get("/v1/audit", params={"action": "hub_credential"}).raise_for_status()
    acts = [(row["action"], row["resource"]) for row in told.json()["items"]]
    assert acts == [("hub_credential.delete", f"{hub}/hub"), ("hub_credential.put", f"{hub}/hub")]
    assert WRITES not in told.text


def test_it_is_nobody_elses(service: RunningApi, owner: httpx.Client, hub: str) -> None:
    owner.put(PATH, json=body(hub)).raise_for_status()
    with service.tenant().client() as stranger:
        refused(stranger.get(PATH), 404)
        refused(stranger.delete(PATH), 404)
    assert owner.get(PATH).status_code == 200


def test_the_database_holds_no_token(service: RunningApi, owner: httpx.Client, hub: str) -> None:
    owner.put(PATH, json=body(hub)).raise_for_status()
    with service.database.read() as session:
        rows = session.execute(text("SELECT * FROM hub_credentials")).all()
    assert rows
    assert WRITES not in str(rows)


@pytest.mark.parametrize(("token", "said"), [(WRONG, "401"), (READS, "only read")])
def test_a_token_that_cannot_publish_is_refused_and_not_repeated(
    owner: httpx.Client, hub: str, token: str, said: str
) -> None:
    answer = owner.put(PATH, json=body(hub, token))
    assert said in refused(answer, 422, "write_token")
    assert token not in answer.text
    refused(owner.get(PATH), 404)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"endpoint": "ftp://hub.example"}, "endpoint"),
        ({"endpoint": "https://user:pass-word@hub.example"}, "endpoint"),
        ({"endpoint": "https://hub.example?token=pass-word"}, "endpoint"),
        ({"endpoint": "https://[pass-word"}, "endpoint"),
        ({"write_token": "sh0rt"}, "write_token"),
        ({"write_token": "a pass-word with spaces"}, "write_token"),
        ({"write_token": "a-pass-word-with-a-new\nline"}, "write_token"),
        ({"write_token": ["pass-word"]}, "write_token"),
        ({"write_token": 123456789}, "write_token"),
        ({"read_token": "sh0rt"}, "read_token"),
    ],
)
def test_a_wrong_request_is_not_repeated(owner: httpx.Client, hub: str, wrong: Body, field: str) -> None:
    answer = owner.put(PATH, json=body(hub) | wrong)
    refused(answer, 422, field)
    for secret in ("pass-word", "sh0rt", "123456789", WRITES):
        assert secret not in answer.text


def test_a_token_in_the_wrong_place_is_not_repeated(owner: httpx.Client) -> None:
    for content in (json.dumps(WRITES), WRITES):
        answer = owner.put(PATH, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert WRITES not in answer.text


def test_what_is_no_hub_or_away_is_said(owner: httpx.Client, hub: str) -> None:
    refused(owner.put(PATH, json={"endpoint": f"{hub}/site", "write_token": WRITES}), 422, "endpoint")
    refused(owner.put(PATH, json={"endpoint": f"{hub}/nothing", "write_token": WRITES}), 422, "endpoint")
    refused(owner.put(PATH, json={"endpoint": f"{hub}/broken", "write_token": WRITES}), 503)
    refused(owner.put(PATH, json={"endpoint": f"http://127.0.0.1:{free_port()}", "write_token": WRITES}), 503)


def test_the_services_own_hub_is_none_of_ones_own(service: RunningApi, owner: httpx.Client) -> None:
    answer = owner.put(PATH, json={"endpoint": f"{service.url}/hub", "write_token": WRITES})
    refused(answer, 422, "endpoint")


@pytest.mark.parametrize("path", ["hub", "away"])
def test_private_addresses_are_refused_unless_settings_allow(client: httpx.Client, hub: str, path: str) -> None:
    answer = client.put(PATH, json={"endpoint": f"{hub}/{path}", "write_token": WRITES})
    assert "PUBLISHER_ALLOW_PRIVATE_ADDRESSES" in refused(answer, 422, "endpoint")


def test_jobs_that_wait_for_a_credential_go_on_at_once(service: RunningApi, owner: httpx.Client, hub: str) -> None:
    base = created(owner.post("/v1/base-models", json={"path": str(service.roots / "tiny")}))
    created(owner.post("/v1/corpora", json={"name": "novel", "path": str(service.roots / "novel.jsonl")}))
    jobs, mine = {}, owner.get("/hub/api/whoami-v2").json()["name"]
    for kind in (WaitKind.CREDENTIAL, WaitKind.HUB):
        publish = {"repo_id": f"{mine}/{kind}"}
        asked = {"base_model_id": base["id"], "recipe": recipe(), "publish": publish}
        jobs[kind] = created(owner.post("/v1/variants", json=asked))["job"]["id"]
        waiting = Waiting(kind, "it is missing").as_json()
        with service.database.write() as session:
            session.execute(update(Job).where(Job.id == jobs[kind]).values(waiting=waiting, claimable_at=4e9))
    owner.put(PATH, json=body(hub)).raise_for_status()
    with service.database.read() as session:
        due = {kind: session.get_one(Job, id).claimable_at for kind, id in jobs.items()}
    assert due == {WaitKind.CREDENTIAL: 0.0, WaitKind.HUB: 4e9}


def test_with_a_hub_of_ones_own_the_service_needs_no_token(tmp_path: Path, hub: str) -> None:
    with serve_api(tmp_path, hub_endpoint="https://hub.example", allow_private_addresses=True) as running:
        tiny_llama(running.roots / "tiny")
        write_corpus(running.roots / "novel.jsonl")
        with running.database.write() as session:
            tenant = add_tenant(session, "org").id
            add_key(session, tenant, "test", "loram_" + "k" * 40)
        with Tenant(tenant, "org", "loram_" + "k" * 40, running.url).client() as client:
            base = created(client.post("/v1/base-models", json={"path": str(running.roots / "tiny")}))
            created(client.post("/v1/corpora", json={"name": "novel", "path": str(running.roots / "novel.jsonl")}))
            asked = {"base_model_id": base["id"], "recipe": recipe(), "publish": {"repo_id": "org/small"}}
            assert "/v1/hub-credentials" in refused(client.post("/v1/variants", json=asked), 503)
            client.put(PATH, json=body(hub)).raise_for_status()
            created(client.post("/v1/variants", json=asked))

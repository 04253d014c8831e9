"""Keys open one tenant's resources, until they are revoked."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import select

from publisher.store.models import ApiKey
from tests.api.conftest import RunningApi, Tenant, created, refused

CALLS = [
    ("GET", "/v1/base-models"), ("POST", "/v1/base-models"), ("GET", "/v1/corpora"), ("POST", "/v1/plans"),
    ("GET", "/v1/variants"), ("POST", "/v1/variants"), ("GET", "/v1/jobs"), ("GET", "/v1/jobs/x/events"),
    ("POST", "/v1/jobs/x/cancel"), ("GET", "/v1/api-keys"), ("POST", "/v1/api-keys"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize("header", [None, "Bearer", "Bearer loram_wrong", "Basic eDp5"])
def test_without_a_valid_key_every_call_is_refused_alike(
    api: RunningApi, method: str, path: str, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = httpx.request(method, f"{api.url}{path}", headers=headers)
    assert refused(answer, 401).startswith("The API key is missing, wrong, revoked or expired.")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_new_key_works_and_is_shown_once(api: RunningApi, client: httpx.Client) -> None:
    made = created(client.post("/v1/api-keys", json={"name": "ci"}))
    assert httpx.get(f"{api.url}/v1/jobs", headers={"Authorization": f"Bearer {made['key']}"}).is_success
    listed = client.get("/v1/api-keys").text
    assert made["id"] in listed
    assert made["key"] not in listed


def test_keys_are_not_stored(api: RunningApi, tenant: Tenant) -> None:
    with api.database.read() as session:
        row = session.scalars(select(ApiKey).where(ApiKey.tenant_id == tenant.id)).one()
    stored = {str(value) for value in vars(row).values()}
    assert not any(tenant.key in value for value in stored)
    assert tenant.key.startswith(row.prefix)


def test_a_revoked_key_is_refused(api: RunningApi, client: httpx.Client) -> None:
    made = created(client.post("/v1/api-keys", json={"name": "ci"}))
    assert client.delete(f"/v1/api-keys/{made['id']}").status_code == 204
    refused(httpx.get(f"{api.url}/v1/jobs", headers={"Authorization": f"Bearer {made['key']}"}), 401)
    listed = {key["id"]: key for key in client.get("/v1/api-keys").json()["items"]}
    assert listed[made["id"]]["revoked_at"] is not None


def test_a_key_revokes_itself_and_those_that_it_made_and_no_other(
    api: RunningApi, client: httpx.Client, tenant: Tenant
) -> None:
    made, sister = (created(client.post("/v1/api-keys", json={"name": name})) for name in ("ci", "other"))
    (first,) = [key["id"] for key in client.get("/v1/api-keys").json()["items"] if key["created_by"] is None]
    with Tenant(tenant.id, tenant.name, made["key"], tenant.url).client() as ci:
        child = created(ci.post("/v1/api-keys", json={"name": "child"}))
        with Tenant(tenant.id, tenant.name, child["key"], tenant.url).client() as own:
            grandchild = created(own.post("/v1/api-keys", json={"name": "grandchild"}))
            for other in (first, made["id"], sister["id"]):
                assert "was not made by" in refused(own.delete(f"/v1/api-keys/{other}"), 403)
        for other in (first, sister["id"]):
            refused(ci.delete(f"/v1/api-keys/{other}"), 403)
        for mine in (child, grandchild, made):
            assert ci.delete(f"/v1/api-keys/{mine['id']}").status_code == 204
        refused(ci.get("/v1/jobs"), 401)
    assert client.delete(f"/v1/api-keys/{sister['id']}").status_code == 204


def test_when_the_first_key_is_gone_the_oldest_takes_its_place(client: httpx.Client, tenant: Tenant) -> None:
    made, other = (created(client.post("/v1/api-keys", json={"name": name})) for name in ("second", "third"))
    (first,) = [key["id"] for key in client.get("/v1/api-keys").json()["items"] if key["created_by"] is None]
    assert client.delete(f"/v1/api-keys/{first}").status_code == 204
    with Tenant(tenant.id, tenant.name, made["key"], tenant.url).client() as second:
        assert second.delete(f"/v1/api-keys/{other['id']}").status_code == 204


def test_the_last_key_stays(client: httpx.Client) -> None:
    (only,) = client.get("/v1/api-keys").json()["items"]
    assert "only key" in refused(client.delete(f"/v1/api-keys/{only['id']}"), 409)
    assert client.get("/v1/api-keys").is_success


def test_somebody_elses_key_is_not_found(client: httpx.Client, stranger: httpx.Client) -> None:
    made = created(client.post("/v1/api-keys", json={"name": "ci"}))
    refused(stranger.delete(f"/v1/api-keys/{made['id']}"), 404)


def test_an_unknown_path_is_a_problem_too(client: httpx.Client) -> None:
    assert "/v1/nothing" in refused(client.get("/v1/nothing"), 404)
    refused(client.put("/v1/jobs"), 405)

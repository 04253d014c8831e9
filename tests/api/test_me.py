"""A key asks whose it is."""

from __future__ import annotations

import time

import httpx

from tests.api.conftest import RunningApi, Tenant, created, refused


def test_a_key_of_the_least_rights_learns_whose_it_is(api: RunningApi, tenant: Tenant, client: httpx.Client) -> None:
    end = time.time() + 3600
    made = created(client.post("/v1/api-keys", json={"name": "ci", "scopes": ["hub:read"], "expires_at": end}))
    said = httpx.get(f"{api.url}/v1/me", headers={"Authorization": f"Bearer {made['key']}"}).raise_for_status().json()
    assert said == {
        "tenant_id": tenant.id,
        "tenant_name": tenant.name,
        "key_id": made["id"],
        "key_name": "ci",
        "scopes": ["hub:read"],
        "expires_at": end,
    }


def test_without_a_key_nothing_is_said(api: RunningApi) -> None:
    refused(httpx.get(f"{api.url}/v1/me"), 401)

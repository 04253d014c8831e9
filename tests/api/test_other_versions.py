"""Variants that other versions of the service stored: listed, shown, and retried or refused by name; never a 500."""

from __future__ import annotations

import httpx
import pytest

from publisher.jobs import service
from publisher.store.models import Variant
from tests.api.conftest import Body, RunningApi, Tenant, refused
from tests.manifest import contents
from tests.recipe.history import HISTORY, NEWER, REMOVED, UNREADABLE, Stored

ANOTHER = "this recipe was written by another version: "
FOREIGN = [UNREADABLE, REMOVED, NEWER]


def store(api: RunningApi, tenant: Tenant, base: Body, recipes: list[Stored], **columns: object) -> list[str]:
    """As that version did: variants' ids, each with a cancelled job."""
    with api.database.write() as session:
        rows = [
            Variant(
                tenant_id=tenant.id,
                base_model_id=base["id"],
                recipe=stored.recipe,
                recipe_version=stored.version,
                recipe_digest="0" * 64,
                publish_repo_id="org/small",
                publish_private=False,
                request_digest="0" * 64,
                **columns,
            )
            for stored in recipes
        ]
        session.add_all(rows)
        session.flush()
        for row in rows:
            service.cancel(session, service.enqueue(session, row).id)
        return [row.id for row in rows]


def listed(client: httpx.Client) -> list[Body]:
    """Every page of the tenant's variants."""
    items, cursor = [], None
    while True:
        answer = client.get("/v1/variants", params={"limit": 50} | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        items += answer.json()["items"]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return items


def test_recipes_of_every_version_are_listed(
    api: RunningApi, client: httpx.Client, tenant: Tenant, base_model: Body
) -> None:
    ids = store(api, tenant, base_model, [*HISTORY, *FOREIGN])
    shown = {item["id"]: item for item in listed(client)}
    assert set(shown) == set(ids)
    for id, stored in zip(ids, HISTORY, strict=False):
        assert shown[id]["recipe"]["pruning"]["ratio"] == stored.recipe["pruning"]["ratio"]
        assert (shown[id]["recipe_problem"], shown[id]["stored_recipe"]) == (None, None)


@pytest.mark.parametrize("stored", FOREIGN, ids=["combination of before", "field that is no more", "newer version"])
def test_recipe_that_cannot_be_read_is_shown_as_such_and_not_retried(
    api: RunningApi, client: httpx.Client, tenant: Tenant, base_model: Body, stored: Stored
) -> None:
    [id] = store(api, tenant, base_model, [stored])
    [item] = listed(client)
    answer = client.get(f"/v1/variants/{id}").json()
    for shown in (item, answer):
        assert (shown["id"], shown["job"]["state"], shown["recipe"]) == (id, "cancelled", None)
        assert shown["recipe_problem"].startswith(ANOTHER)
        assert shown["stored_recipe"] == stored.recipe
    job = f"/v1/jobs/{answer['job']['id']}"
    assert ANOTHER in refused(client.post(f"{job}/retry"), 409)
    assert client.get(job).json()["state"] == "cancelled"


def test_recipe_of_an_older_version_is_retried(
    api: RunningApi, client: httpx.Client, tenant: Tenant, base_model: Body
) -> None:
    [id] = store(api, tenant, base_model, [HISTORY[0]])
    job = client.get(f"/v1/variants/{id}").json()["job"]["id"]
    assert client.post(f"/v1/jobs/{job}/retry").json()["state"] == "queued"


def test_manifest_of_the_first_version_tells_its_certificate_and_one_to_come_that_it_cannot_be_read(
    api: RunningApi, client: httpx.Client, tenant: Tenant, base_model: Body
) -> None:
    first = contents.content(format_version="1.0", base_widths=contents.WIDTH)
    [old] = store(api, tenant, base_model, [HISTORY[0]], manifest=first)
    answer = client.get(f"/v1/variants/{old}").json()
    assert (answer["certificate"]["verdict"], answer["manifest_problem"]) == ("passed", None)
    assert answer["manifest"] == first
    [new] = store(api, tenant, base_model, [HISTORY[0]], manifest=contents.content(format_version="3.0"))
    answer = client.get(f"/v1/variants/{new}").json()
    assert answer["certificate"] is None
    assert "has format_version 3.0" in answer["manifest_problem"]
    assert len(listed(client)) == 2

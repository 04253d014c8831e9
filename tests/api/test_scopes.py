"""Keys do what their scopes say, give no more than they have, and end when they should."""

from __future__ import annotations

import time
from collections.abc import Sequence

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy import select, update

from publisher.api.scopes import NEEDED, refuse_unlisted, require_scope
from publisher.keys.digests import secret_id
from publisher.keys.scopes import Scope
from publisher.store import tenants
from publisher.store.models import ApiKey, Tenant
from tests.api import conftest
from tests.api.conftest import Body, RunningApi, created, refused


def make(client: httpx.Client, *scopes: str, **more: object) -> Body:
    return created(client.post("/v1/api-keys", json={"name": "k", "scopes": list(scopes)} | more))


def sent_with(api: RunningApi, key: str) -> httpx.Client:
    return conftest.Tenant("", "", key, api.url).client()


def test_a_key_for_reading_reads_and_is_told_what_it_lacks(
    api: RunningApi, client: httpx.Client, base_model: Body
) -> None:
    made = make(client, "models:read")
    assert made["scopes"] == ["models:read"]
    with sent_with(api, made["key"]) as reader:
        assert reader.get(f"/v1/base-models/{base_model['id']}").is_success
        assert "lacks the scope models:write" in refused(reader.delete(f"/v1/base-models/{base_model['id']}"), 403)
        assert "lacks the scope variants:write" in refused(reader.post("/v1/variants", json={}), 403)
        assert "lacks the scope admin" in refused(reader.get("/v1/api-keys"), 403)


def test_a_key_makes_keys_of_its_own_scopes_alone(api: RunningApi, client: httpx.Client) -> None:
    made = make(client, "admin", "hub:write")
    assert made["scopes"] == ["admin", "hub:read", "hub:write"]
    with sent_with(api, made["key"]) as admin:
        assert make(admin, "hub:read")["scopes"] == ["hub:read"]
        assert "variants:write" in refused(
            admin.post("/v1/api-keys", json={"name": "k", "scopes": ["variants:write"]}), 403, "scopes"
        )
        without = created(admin.post("/v1/api-keys", json={"name": "k"}))
        assert without["scopes"] == made["scopes"]


def test_a_variant_goes_with_its_publication_by_a_key_that_may_delete_there(
    api: RunningApi, client: httpx.Client, variant_body: Body
) -> None:
    variant = created(client.post("/v1/variants", json=variant_body))
    path = f"/v1/variants/{variant['id']}"
    with sent_with(api, make(client, "variants:write")["key"]) as orders:
        assert "hub:write" in refused(orders.delete(path, params={"publication": "delete"}), 403)
        refused(orders.delete(path), 409)  # its job has not ended
    with sent_with(api, make(client, "variants:write", "hub:write")["key"]) as both:
        refused(both.delete(path, params={"publication": "delete"}), 409)


def test_a_key_revokes_itself_whatever_it_may_do_and_no_other(api: RunningApi, client: httpx.Client) -> None:
    made, other = make(client, "hub:read"), make(client, "hub:read")
    with sent_with(api, made["key"]) as leaked:
        assert "lacks the scope admin" in refused(leaked.delete(f"/v1/api-keys/{other['id']}"), 403)
        assert leaked.delete(f"/v1/api-keys/{made['id']}").status_code == 204
        refused(leaked.get("/v1/jobs"), 401)


def test_a_word_that_is_no_scope_is_refused(client: httpx.Client) -> None:
    for scopes in (["models:delete"], [""], []):
        refused(client.post("/v1/api-keys", json={"name": "k", "scopes": scopes}), 422)


def test_a_key_from_before_there_were_scopes_does_everything(api: RunningApi, client: httpx.Client) -> None:
    (row,) = client.get("/v1/api-keys").json()["items"]
    assert row["scopes"] == sorted(Scope)
    assert row["expires_at"] is None


def test_an_expired_key_is_refused_as_a_revoked_one_is(api: RunningApi, client: httpx.Client) -> None:
    made, revoked = make(client, "models:read", expires_at=time.time() + 3600), make(client, "models:read")
    client.delete(f"/v1/api-keys/{revoked['id']}").raise_for_status()
    with sent_with(api, made["key"]) as late, sent_with(api, revoked["key"]) as gone:
        assert late.get("/v1/jobs").is_success
        with api.database.write() as session:
            session.execute(update(ApiKey).where(ApiKey.id == made["id"]).values(expires_at=time.time() - 1))
        assert refused(late.get("/v1/jobs"), 401) == refused(gone.get("/v1/jobs"), 401)


def test_an_end_that_has_passed_is_refused(client: httpx.Client) -> None:
    refused(client.post("/v1/api-keys", json={"name": "k", "expires_at": time.time() - 1}), 422, "expires_at")


def test_a_key_that_ends_makes_none_that_outlives_it(api: RunningApi, client: httpx.Client) -> None:
    ends = time.time() + 3600
    with sent_with(api, make(client, "admin", expires_at=ends)["key"]) as short:
        assert make(short, "admin")["expires_at"] == ends
        assert make(short, "admin", expires_at=ends - 60)["expires_at"] == ends - 60
        later = short.post("/v1/api-keys", json={"name": "k", "expires_at": ends + 1})
        assert "ends itself" in refused(later, 403, "expires_at")
    assert make(client, "admin")["expires_at"] is None


@pytest.mark.parametrize("letter", ["\0", "\n", "\x9b", "\u2028", "\u202e", "\u2066"])
def test_a_name_holds_nothing_that_moves_a_terminal_or_turns_a_line(client: httpx.Client, letter: str) -> None:
    refused(client.post("/v1/api-keys", json={"name": f"a{letter}b"}), 422, "name")
    hook = {"url": "https://ci.example.com/", "description": f"a{letter}b"}
    refused(client.post("/v1/webhooks", json=hook), 422, "description")


def test_the_only_key_that_makes_others_for_good_stays(api: RunningApi, client: httpx.Client) -> None:
    (first,) = client.get("/v1/api-keys").json()["items"]
    make(client, "models:read")
    make(client, "admin", expires_at=time.time() + 3600)
    refused(client.delete(f"/v1/api-keys/{first['id']}"), 409)
    make(client, "admin")
    assert client.delete(f"/v1/api-keys/{first['id']}").status_code == 204


@pytest.mark.parametrize("damage", [lambda key: key[:-1], lambda key: key.swapcase(), lambda key: f"{key}x"])
def test_a_damaged_key_is_told_from_a_wrong_one(api: RunningApi, client: httpx.Client, damage: object) -> None:
    key = make(client, "models:read")["key"]
    broken = "loramk_" + damage(key.removeprefix("loramk_"))  # type: ignore[operator]
    with sent_with(api, broken) as caller:
        assert "checksum" in refused(caller.get("/v1/jobs"), 401)


def test_keys_are_kept_under_the_services_secret(api: RunningApi, client: httpx.Client) -> None:
    made = make(client, "models:read")
    with api.database.read() as session:
        row = session.get_one(ApiKey, made["id"])
    assert row.secret_id == secret_id(api.settings.secret_bytes())


def test_a_suspended_tenant_is_told_so_and_resumed_goes_on(
    api: RunningApi, tenant: conftest.Tenant, client: httpx.Client
) -> None:
    with api.database.write() as session:
        tenants.suspend(session, session.get_one(Tenant, tenant.id))
    assert "is suspended" in refused(client.get("/v1/jobs"), 403)
    with api.database.write() as session:
        session.get_one(Tenant, tenant.id).suspended_at = None
    assert client.get("/v1/jobs").is_success


def app_with(tag: str, dependencies: Sequence[object]) -> FastAPI:
    app, router = FastAPI(), APIRouter(prefix="/v1/things", tags=[tag])

    @router.get("/{id}")
    def thing(id: str) -> str:
        return id

    app.include_router(router, dependencies=[Depends(each) for each in dependencies])  # type: ignore[arg-type]
    return app


def test_a_route_that_says_no_scope_or_does_not_ask_for_it_does_not_start() -> None:
    refuse_unlisted(app_with("jobs", [require_scope]))
    with pytest.raises(RuntimeError, match=r"GET /v1/things/\{id\} .* has no scope"):
        refuse_unlisted(app_with("things", [require_scope]))
    with pytest.raises(RuntimeError, match="does not depend on"):
        refuse_unlisted(app_with("jobs", []))


def test_every_line_of_the_table_is_a_route(api: RunningApi) -> None:
    paths = httpx.get(f"{api.url}/openapi.json").json()["paths"]
    served = {
        (call["tags"][0], method.upper())
        for calls in paths.values()
        for method, call in calls.items()
        if "tags" in call
    }
    assert set(NEEDED) <= served


def test_all_keys_made_by_the_service_have_a_keyed_digest(
    api: RunningApi, client: httpx.Client, tenant: conftest.Tenant
) -> None:
    make(client, "models:read")
    with api.database.read() as session:
        made = session.scalars(
            select(ApiKey).where(ApiKey.tenant_id == tenant.id, ApiKey.created_by.is_not(None))
        ).all()
    assert made
    assert all(row.secret_id for row in made)


def test_a_tenant_registers_from_its_own_folders_alone(
    api: RunningApi, tenant: conftest.Tenant, client: httpx.Client
) -> None:
    with api.database.write() as session:
        session.get_one(Tenant, tenant.id).local_roots = [str(api.roots / "of-this-tenant")]
    tiny = {"path": str(api.roots / "tiny")}
    assert "publisher admin tenant roots" in refused(client.post("/v1/base-models", json=tiny), 422, "path")
    novel = {"name": "novel", "path": str(api.roots / "novel.jsonl")}
    refused(client.post("/v1/corpora", json=novel), 422, "path")
    with api.database.write() as session:
        session.get_one(Tenant, tenant.id).local_roots = [str(api.roots / "tiny")]
    created(client.post("/v1/base-models", json=tiny))


def test_the_last_use_of_a_key_is_shown(api: RunningApi, client: httpx.Client) -> None:
    assert client.get("/v1/jobs").is_success
    api.doorkeeper.write()
    (row,) = client.get("/v1/api-keys").json()["items"]
    assert row["last_used_at"] == pytest.approx(time.time(), abs=120)

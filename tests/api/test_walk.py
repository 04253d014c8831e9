"""Nobody gets at another tenant's things: every route × a stranger's ids × each scope, and keys that open nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from publisher.api import base_models, corpora, jobs, sweeps, variant_files, variants
from publisher.api.sweeps_schema import SweepPublish, SweepRequest
from publisher.hub.grants import DatabaseGrants
from publisher.hub.names import RepositoryId
from publisher.hub.owner import Owner as HubOwner
from publisher.hub.repositories import Repository
from publisher.hub.storage import HubStorage
from publisher.jobs import leases
from publisher.jobs.tokens import sign_job_token
from publisher.keys.scopes import Scope, rights
from publisher.store import filters, keys, tenants
from publisher.store.models import ApiKey, AuditEntry, Corpus, Sweep, Tenant, VariantFile, Webhook, WebhookEvent
from tests.api.conftest import RunningApi
from tests.api.walk import Answer, Call, api_calls, dashboard_calls, hub_calls, leaks, send
from tests.dashboard.conftest import CSRF, csrf
from tests.dashboard.rows import RECIPE, Account
from tests.store.rows import Owner, add_delivery

SECRET = "victims-secret-word"


@dataclass(frozen=True)
class Stranger:
    """A tenant of its own; `key_for` makes keys of it."""

    api: RunningApi
    account: Account

    def key_for(self, *scopes: Scope, expires_at: float | None = None) -> str:
        key = keys.new_key()
        with self.api.database.write() as session:
            keys.add_key(session, self.account.tenant_id, "walk", key, scopes=scopes, expires_at=expires_at)
        return key

    def with_key(self, key: str | None) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.api.url, headers=headers, timeout=60)


def make_victim(api: RunningApi) -> Owner:
    account = Account.create(api.database, f"victim-{time.time_ns()}")
    base = account.base_model(f"{SECRET}/base")
    work = account.job(repo_id=f"{SECRET}/small", base_model_id=base)
    asked_for = SweepRequest(
        base_model_id=base, recipe=RECIPE, vary={"seed": [1, 2]}, publish=SweepPublish(repo_id=f"{SECRET}/{{seed}}")
    ).model_dump(mode="json")
    with api.database.write() as session:
        source = {"name": SECRET, "path": f"/{SECRET}"}
        corpus = Corpus(tenant_id=account.tenant_id, name=SECRET, source=source, facts={})
        sweep = Sweep(tenant_id=account.tenant_id, request=asked_for, request_digest="0" * 64)
        file = VariantFile(variant_id=work.variant_id, path="config.json", size=2, sha256="0" * 64)
        hook = Webhook(tenant_id=account.tenant_id, url=f"https://{SECRET}.invalid", description=SECRET, secret="")
        event = WebhookEvent(tenant_id=account.tenant_id, type="webhook.test", at=0.0, data={})
        session.add_all([corpus, sweep, file, hook, event])
        session.flush()
        delivery = add_delivery(session, hook, event)
        told = session.scalars(select(AuditEntry.id).where(AuditEntry.tenant_id == account.tenant_id).limit(1)).one()
        made = (base, corpus.id, work.variant_id, work.job_id, sweep.id, told, hook.id, event.id, delivery.id)
        return Owner(account.tenant_id, account.key_id, *made)


@pytest.fixture
def victim(api: RunningApi) -> Owner:
    return make_victim(api)


@pytest.fixture
def stranger(api: RunningApi) -> Stranger:
    return Stranger(api, Account.create(api.database, f"stranger-{time.time_ns()}"))


@pytest.fixture(scope="module")
def document(api: RunningApi) -> dict[str, Any]:
    return dict(httpx.get(f"{api.url}/openapi.json").json())


def asked(client: httpx.Client, calls: Sequence[Call] | Iterator[Call]) -> list[Answer]:
    with client:
        return [send(client, call) for call in calls]


def words(victim: Owner) -> list[str]:
    return [SECRET, victim.job, victim.variant, victim.base_model, victim.corpus, victim.sweep, victim.key]


def test_no_route_shows_a_stranger_anything(document: dict[str, Any], victim: Owner, stranger: Stranger) -> None:
    answers = asked(stranger.with_key(stranger.account.key), api_calls(document, victim))
    assert leaks(answers, words(victim)) == []
    assert len(answers) > 150
    assert len([answer for answer in answers if answer.status == 404]) > 100


@pytest.mark.parametrize("scope", list(Scope))
def test_each_scope_opens_its_own_routes_and_nothing_of_somebody_elses(
    document: dict[str, Any], victim: Owner, stranger: Stranger, scope: Scope
) -> None:
    calls = api_calls(document, victim, every_id=False)
    answers = asked(stranger.with_key(stranger.key_for(scope)), calls)
    assert leaks(answers, words(victim)) == []
    held = rights([scope])
    for answer in answers:
        lacks = f"lacks the scope {answer.call.needs}" in answer.text
        assert lacks != answer.call.is_open_to(held), f"{answer.call}: {answer.status} {answer.text}"


@pytest.mark.parametrize("scopes", [(), *((scope,) for scope in Scope)])
def test_own_things_are_closed_without_their_scope(
    document: dict[str, Any], victim: Owner, api: RunningApi, scopes: tuple[Scope, ...]
) -> None:
    """The victim's own key: what is its tenant's is refused all the same where its scope is missing."""
    key = keys.new_key()
    with api.database.write() as session:
        keys.add_key(session, victim.tenant_id, "walk", key, scopes=scopes)
    closed = [call for call in api_calls(document, victim, every_id=False) if not call.is_open_to(rights(scopes))]
    for answer in asked(Stranger(api, Account(api.database, "", "", "")).with_key(key), closed):
        assert answer.status == 403, f"{answer.call}: {answer.status}"


Dead = Callable[[Stranger], str | None]


def suspended(stranger: Stranger) -> str:
    with stranger.api.database.write() as session:
        tenants.suspend(session, session.get_one(Tenant, stranger.account.tenant_id))
    return stranger.account.key


def revoked(stranger: Stranger) -> str:
    with stranger.api.database.write() as session:
        keys.revoke(session, session.get_one(ApiKey, stranger.account.key_id))
    return stranger.account.key


def expired(stranger: Stranger) -> str:
    return stranger.key_for(*Scope, expires_at=time.time() - 1)


def of_a_job(stranger: Stranger) -> str:
    job_id = stranger.account.job().job_id
    with stranger.api.database.write() as session:
        lease = leases.claim(session, job_id, "w", 600)
    assert lease is not None
    return sign_job_token(stranger.api.settings.secret_bytes(), lease)


@pytest.mark.parametrize(
    ("dead", "status"),
    [(suspended, 403), (revoked, 401), (expired, 401), (of_a_job, 401), (lambda stranger: None, 401)],
)
def test_what_opens_nothing_opens_no_route(
    document: dict[str, Any], victim: Owner, stranger: Stranger, dead: Dead, status: int
) -> None:
    calls = list(api_calls(document, victim, every_id=False))
    answers = asked(stranger.with_key(dead(stranger)), calls)
    assert {str(answer.call): answer.status for answer in answers if answer.status != status} == {}


def test_the_walk_asks_for_what_its_owner_gets(document: dict[str, Any], victim: Owner, api: RunningApi) -> None:
    """Otherwise a refusal would mean nothing."""
    key = keys.new_key()
    with api.database.write() as session:
        keys.add_key(session, victim.tenant_id, "own", key)
    calls = [call for call in api_calls(document, victim) if call.method == "get" and call.names_the_victim]
    answers = asked(Stranger(api, Account(api.database, "", "", "")).with_key(key), calls)
    shown = {answer.call.path for answer in answers if answer.status == 200}
    # without a publication there is none to show
    assert {call.path for call in calls} - shown == {"/v1/variants/{id}/files/{path}"}


# -- it would be seen


def forgetful_owned(session: Any, model: Any, tenant_id: str, id: str, **_: object) -> Any:
    row = session.get(model, id)
    if row is None:
        raise jobs.owned.__globals__["NotFound"]("gone")
    return row


@pytest.mark.parametrize("module", [base_models, corpora, jobs, sweeps, variant_files, variants])
def test_a_route_that_forgets_its_tenant_is_found(
    document: dict[str, Any], victim: Owner, stranger: Stranger, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "owned", forgetful_owned)
    prefix = module.router.prefix
    calls = [call for call in api_calls(document, victim) if call.path.startswith(prefix)]
    assert leaks(asked(stranger.with_key(stranger.account.key), calls), words(victim))


@pytest.mark.parametrize("path", ["/v1/base-models", "/v1/corpora", "/v1/variants", "/v1/jobs"])
def test_a_list_that_forgets_its_tenant_is_found(
    document: dict[str, Any], victim: Owner, stranger: Stranger, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "readable_by", lambda tenant_id, model: select(model))
    calls = [call for call in api_calls(document, victim) if call.path == path and call.method == "get"]
    assert leaks(asked(stranger.with_key(stranger.account.key), calls), words(victim))


# -- the dashboard


def browse(stranger: Stranger, key: str, calls: Iterator[Call]) -> list[Answer]:
    answers = []
    with httpx.Client(base_url=stranger.api.url, timeout=60) as browser:
        form = browser.get("/login")
        assert browser.post("/login", data={"csrf": csrf(form), "key": key}).status_code == 303
        found = CSRF.search(browser.get("/families").text)
        token = found[1] if found else ""
        for call in calls:
            if call.method == "post":
                response = browser.post(call.address, data={"csrf": token})
                answers.append(Answer(call, response.status_code, response.text))
            else:
                answers.append(send(browser, call))
    return answers


def test_no_page_shows_a_stranger_anything(victim: Owner, stranger: Stranger) -> None:
    answers = browse(stranger, stranger.account.key, dashboard_calls(victim))
    assert leaks(answers, words(victim)) == []
    assert len([answer for answer in answers if answer.status == 404]) > 20


#: what pages of the dashboard need, by how their addresses begin, the first that fits; None: whoever is signed in
PAGES: tuple[tuple[str, Scope | None, Scope | None], ...] = (
    # address, to look, to send
    ("/variants/{id}/delete", Scope.VARIANTS_WRITE, Scope.VARIANTS_WRITE),
    ("/settings/quotas", Scope.MODELS_READ, None),
    ("/settings/", Scope.ADMIN, Scope.ADMIN),
    ("/settings", None, None),
    ("/repositories", Scope.HUB_READ, None),
    ("/base-models/new", Scope.MODELS_WRITE, Scope.MODELS_WRITE),
    ("/corpora/new", Scope.MODELS_WRITE, Scope.MODELS_WRITE),
    ("/base-models", Scope.MODELS_READ, Scope.MODELS_WRITE),
    ("/corpora", Scope.MODELS_READ, Scope.MODELS_WRITE),
    # a plan makes nothing; that submitting takes more is for tests/dashboard/test_order.py
    ("/variants/new", Scope.MODELS_READ, Scope.MODELS_READ),
    ("/", Scope.MODELS_READ, Scope.VARIANTS_WRITE),
)


def page_needs(call: Call) -> Scope | None:
    looks, sends = next((looks, sends) for begins, looks, sends in PAGES if call.path.startswith(begins))
    return sends if call.method == "post" else looks


@pytest.mark.parametrize("scope", list(Scope))
def test_a_session_does_what_its_key_may(victim: Owner, stranger: Stranger, scope: Scope) -> None:
    answers = browse(stranger, stranger.key_for(scope), dashboard_calls(victim))
    assert leaks(answers, words(victim)) == []
    for answer in answers:
        if answer.call.path == "/":
            continue
        needs = page_needs(answer.call)
        if needs is not None:
            assert (answer.status == 403) == (needs not in rights([scope])), f"{answer.call}: {answer.status}"


def test_a_page_that_forgets_its_tenant_is_found(
    victim: Owner, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from publisher.dashboard import jobs as pages

    monkeypatch.setattr(pages, "owned", forgetful_owned)
    assert leaks(browse(stranger, stranger.account.key, dashboard_calls(victim)), words(victim))


def test_a_session_of_a_suspended_tenant_ends(victim: Owner, stranger: Stranger) -> None:
    with httpx.Client(base_url=stranger.api.url, timeout=60) as browser:
        form = browser.get("/login")
        browser.post("/login", data={"csrf": csrf(form), "key": stranger.account.key})
        assert browser.get("/jobs").status_code == 200
        suspended(stranger)
        page = browser.get("/jobs")
        assert page.status_code == 403
        assert "is suspended" in page.text
        again = browser.post("/login", data={"csrf": csrf(browser.get("/login")), "key": stranger.account.key})
        assert again.status_code == 403


# -- the embedded Hub


@pytest.fixture
def private(api: RunningApi, victim: Owner) -> tuple[HubStorage, str, str]:
    """A private repository of the victim's: storage, namespace, name."""
    storage = HubStorage(api.settings.hub_dir, DatabaseGrants(api.database))
    with api.database.read() as session:
        name = session.get_one(Tenant, victim.tenant_id).name
    storage.create_repository(RepositoryId(name, SECRET), HubOwner(victim.tenant_id, name), private=True)
    return storage, name, SECRET


def test_the_hub_shows_nobody_anothers_private_repository(
    private: tuple[HubStorage, str, str], victim: Owner, stranger: Stranger
) -> None:
    whose = [None, stranger.account.key, of_a_job(stranger), expired(stranger)]
    whose += [stranger.key_for(scope) for scope in Scope]
    for key in whose:
        assert leaks(asked(stranger.with_key(key), hub_calls(*private)), words(victim)) == []
    answers = asked(stranger.with_key(suspended(stranger)), hub_calls(*private))
    with_key = {
        answer.status for answer in answers if answer.call.names_the_victim and "uploads" not in answer.call.path
    }
    assert with_key == {403}


def test_a_hub_that_forgets_its_owner_is_found(
    private: tuple[HubStorage, str, str], victim: Owner, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Repository, "readable_by", lambda self, owner: True)
    found = leaks(asked(stranger.with_key(stranger.account.key), hub_calls(*private)), words(victim))
    assert any(re.search(r"GET /hub/api/models\b.* shows", line) for line in found)


@pytest.mark.parametrize("scope", list(Scope))
def test_a_key_reads_and_writes_its_own_repositories_by_its_scope(
    private: tuple[HubStorage, str, str], victim: Owner, api: RunningApi, stranger: Stranger, scope: Scope
) -> None:
    key, (_, namespace, name) = keys.new_key(), private
    with api.database.write() as session:
        keys.add_key(session, victim.tenant_id, "hub", key, scopes=[scope])
    reads, writes = Scope.HUB_READ in rights([scope]), Scope.HUB_WRITE in rights([scope])
    with stranger.with_key(key) as client:
        model = f"/hub/api/models/{namespace}/{name}"
        assert client.get(model).status_code == (200 if reads else 403)
        assert (name in client.get("/hub/api/models").text) == reads
        assert client.post(f"{model}/tag/main", json={"tag": f"t-{scope.name}"}).status_code == (200 if writes else 403)
        new = {"name": f"made-by-{scope.name}", "organization": namespace}
        made = client.post("/hub/api/repos/create", json=new)
        assert made.status_code == (200 if writes else 403)
        assert writes or "hub:write" in made.json()["error"]
        who = client.get("/hub/api/whoami-v2").json()
        assert who["auth"]["accessToken"]["role"] == ("write" if writes else "read" if reads else "none")
        assert who["scopes"] == sorted(rights([scope]))

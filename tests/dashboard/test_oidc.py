"""People sign in at a provider: who is let in, what is refused, and what ends a session."""

from __future__ import annotations

import hmac
import json
import re
import secrets
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from sqlalchemy import select
from starlette.responses import PlainTextResponse, RedirectResponse

from publisher.dashboard.session import SESSION_COOKIE
from publisher.dashboard.sign_in import START
from publisher.people.roles import Role
from publisher.store import members
from publisher.store.audit import AuditFilters, all_entries
from publisher.store.models import Membership, Person, Tenant
from tests.dashboard.conftest import RunningDashboard, csrf, serve, sign_in
from tests.dashboard.rows import Account
from tests.people.provider import CLIENT_ID, CLIENT_SECRET, Claims, SmallProvider, small_provider

LAB = "lab"
RULES = [
    {"claim": "groups", "value": "ml-team", "tenant": LAB, "role": "member"},
    {"claim": "realm_access.roles", "value": "boss", "tenant": LAB, "role": "admin"},
    {"email_domain": "Lab.example", "tenant": LAB},
    {"claim": "groups", "value": "ml-team", "tenant": "not-made-yet"},
]


@pytest.fixture(scope="module")
def running() -> Iterator[SmallProvider]:
    with small_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: SmallProvider) -> SmallProvider:
    running.well()
    return running


def settings_for(provider: SmallProvider, **changes: Any) -> dict[str, Any]:
    registered = {"oidc_issuer": provider.issuer, "oidc_client_id": CLIENT_ID, "oidc_client_secret": CLIENT_SECRET}
    return registered | {"oidc_name": "Acme", "oidc_rules": RULES, "oidc_help": "it@acme.example"} | changes


@pytest.fixture(scope="module")
def service(running: SmallProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDashboard]:
    with serve(tmp_path_factory.mktemp("oidc"), **settings_for(running)) as dashboard:
        Account.create(dashboard.database, LAB)
        yield dashboard


@pytest.fixture
def someone(provider: SmallProvider) -> Claims:
    """Who signs in next; verified, and known to nobody."""
    name = secrets.token_hex(4)
    provider.user = {"sub": name, "email": f"{name.upper()}@acme.example", "email_verified": True, "name": f"Ms {name}"}
    return provider.user


def invite(service: RunningDashboard, someone: Claims, role: Role = Role.MEMBER, tenant: str = LAB) -> str:
    with service.database.write() as session:
        return members.add(session, tenant, someone["email"], role).id


def go(browser: httpx.Client, next: str = START) -> str:
    """To the provider and back: the address that the browser comes back to."""
    sent = browser.get("/login/oidc", params={"next": next})
    assert sent.status_code == 303, sent.text
    returned = httpx.get(sent.headers["location"])
    assert returned.status_code == 302
    return str(returned.headers["location"])


def enter(browser: httpx.Client, next: str = START) -> httpx.Response:
    return browser.get(go(browser, next))


def target(answer: httpx.Response) -> str:
    """Where a page sends the browser on to."""
    assert answer.status_code == 200, answer.text
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]*)"', answer.text)
    assert found is not None, answer.text
    return unescape(found[1])


def refused(answer: httpx.Response, status: int = 403) -> str:
    """The problem that the sign-in form names; nobody is signed in, and keys still work."""
    assert answer.status_code == status, answer.text
    assert SESSION_COOKIE not in answer.cookies
    assert 'name="key"' in answer.text
    found = re.search(r'role="alert">([^<]*)<', answer.text)
    assert found is not None
    return unescape(found[1])


@contextmanager
def entered(service: RunningDashboard) -> Iterator[httpx.Client]:
    with service.browser() as browser:
        assert target(enter(browser)) == START
        yield browser


def test_invited_person_comes_to_the_page_that_was_asked_for(service: RunningDashboard, someone: Claims) -> None:
    invite(service, someone)
    with service.browser() as browser:
        form = browser.get("/login", params={"next": "/variants?cursor=var_9"})
        link = re.search(r'href="(/login/oidc[^"]*)"', form.text)
        assert link is not None
        assert "Sign in with Acme" in form.text
        assert parse_qs(urlsplit(unescape(link[1])).query) == {"next": ["/variants?cursor=var_9"]}
        answer = enter(browser, "/variants?cursor=var_9")
        assert target(answer) == "/variants?cursor=var_9"
        page = browser.get("/variants?cursor=var_9")
        assert page.status_code == 200
        assert someone["name"] in page.text
        assert f"member of {LAB}" in page.text


def test_cookie_is_as_careful_as_that_of_a_key_and_nothing_of_the_provider_is_kept(
    service: RunningDashboard, provider: SmallProvider, someone: Claims
) -> None:
    id = invite(service, someone)
    tokens: list[str] = []
    provider.sign = lambda claims: tokens.append(provider.signed(claims)) or tokens[-1]  # type: ignore[func-returns-value]
    with service.browser() as browser:
        answer = enter(browser)
        cookies = {each.split("=")[0]: each.lower() for each in answer.headers.get_list("set-cookie")}
        assert browser.cookies[SESSION_COOKIE].startswith(f"{id}.")
    assert "httponly" in cookies[SESSION_COOKIE]
    assert "samesite=strict" in cookies[SESSION_COOKIE]
    (attempt,) = (told for name, told in cookies.items() if name.startswith("publisher_oidc_"))
    assert "max-age=0" in attempt
    with service.database.read() as session:
        kept = [repr(row) for table in (Person, Membership) for row in session.execute(select(table.__table__))]
    assert not any(token in row for token in tokens for row in kept)
    assert not any(token in text for token in tokens for text in (answer.text, *answer.headers.values()))


def test_a_sign_in_ends_where_the_secret_has_been_replaced_meanwhile(
    provider: SmallProvider, someone: Claims, tmp_path: Path
) -> None:
    """As in a rotation: it begins on a machine whose newest secret is another one's older."""
    old, new = "o" * 40, "n" * 40
    machine = {"secret": old, "old_secrets": new}, {"secret": new, "old_secrets": old}
    with serve(tmp_path, **settings_for(provider), **machine[0]) as before:
        Account.create(before.database, LAB)
        invite(before, someone)
        with before.browser() as browser:
            back, cookies = go(browser), dict(browser.cookies)
    with serve(tmp_path, int(urlsplit(back).port or 0), **settings_for(provider), **machine[1]) as after:
        with httpx.Client(cookies=cookies, timeout=30) as browser:
            assert target(browser.get(back)) == START
        assert after.url in back


def test_who_belongs_nowhere_is_told_whom_to_ask_and_is_not_kept(service: RunningDashboard, someone: Claims) -> None:
    with service.browser() as browser:
        answer = enter(browser)
        assert answer.status_code == 403
        assert "Ask it@acme.example" in answer.text
        assert f"publisher admin member add TENANT {someone['email'].lower()} --role member" in answer.text
        assert browser.get("/jobs").status_code == 303
    with service.database.read() as session:
        assert session.scalar(select(Person).where(Person.subject == someone["sub"])) is None
        (told,) = all_entries(session, AuditFilters(action="session.refuse", resource=someone["sub"]))
    assert (told.tenant_id, told.details) == (None, {"email": someone["email"].lower()})


@pytest.mark.parametrize("word", [None, False, "false", 1, "yes"])
def test_address_that_is_not_verified_opens_no_invitation(
    service: RunningDashboard, someone: Claims, word: object
) -> None:
    invite(service, someone)
    someone["email_verified"] = word
    with service.browser() as browser:
        answer = enter(browser)
        assert answer.status_code == 403
        assert "no e-mail address that it has verified" in answer.text
        assert f'"value": "{someone["sub"]}"' in unescape(answer.text)


def test_invitation_is_for_the_first_who_comes_with_its_address(service: RunningDashboard, someone: Claims) -> None:
    invite(service, someone)
    with entered(service):
        pass
    someone["sub"] += "-another"  # the address has been given to somebody else
    with service.browser() as browser:
        assert enter(browser).status_code == 403


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"groups": ["x", "ml-team"]}, "member"),
        ({"groups": "ml-team"}, "member"),
        ({"groups": ["ml-team"], "realm_access": {"roles": ["boss"]}}, "admin"),
        ({"email": "a@lab.example"}, "viewer"),
    ],
)
def test_rules_let_in_with_the_highest_role(
    service: RunningDashboard, someone: Claims, claims: Claims, role: str
) -> None:
    someone |= claims
    with entered(service) as browser:
        assert f"{role} of {LAB}" in browser.get("/jobs").text


@pytest.mark.parametrize("claims", [{"groups": ["ml-teams"]}, {"groups": "no-ml-team"}, {"groups": {"ml-team": 1}}])
def test_rules_take_only_the_whole_value(service: RunningDashboard, someone: Claims, claims: Claims) -> None:
    someone |= claims
    with service.browser() as browser:
        assert enter(browser).status_code == 403


def test_domain_counts_exactly_and_verified(service: RunningDashboard, someone: Claims) -> None:
    for email, verified in (("a@sub.lab.example", True), ("a@evil-lab.example", True), ("a@lab.example", False)):
        someone |= {"email": email, "email_verified": verified}
        with service.browser() as browser:
            assert enter(browser).status_code == 403


def test_who_has_left_the_group_is_out_at_the_next_sign_in(service: RunningDashboard, someone: Claims) -> None:
    someone["groups"] = ["ml-team"]
    with entered(service) as before, service.browser() as browser:
        someone["groups"] = []
        assert enter(browser).status_code == 403
        assert before.get("/jobs").status_code == 303


def test_claims_that_the_id_token_leaves_out_come_from_userinfo(
    service: RunningDashboard, provider: SmallProvider, someone: Claims
) -> None:
    provider.userinfo = dict(someone) | {"groups": ["ml-team"]}
    for name in ("email", "email_verified"):
        del someone[name]
    with entered(service) as browser:
        assert f"member of {LAB}" in browser.get("/jobs").text
    assert provider.asked[-1] == "/userinfo"
    provider.userinfo["sub"] = "somebody else"
    with service.browser() as browser:
        assert "about somebody else" in refused(enter(browser))


def test_word_that_an_address_is_verified_is_of_the_same_source(
    service: RunningDashboard, provider: SmallProvider, someone: Claims
) -> None:
    invite(service, someone)
    del someone["email_verified"]
    provider.userinfo = {"sub": someone["sub"], "email": "own@acme.example", "email_verified": True}
    with service.browser() as browser:
        assert enter(browser).status_code == 403


def test_person_of_several_tenants_chooses(service: RunningDashboard, someone: Claims) -> None:
    other = service.account()
    with service.database.read() as session:
        name = session.get_one(Tenant, other.tenant_id).name
    invite(service, someone)
    invite(service, someone, Role.VIEWER, name)
    theirs = other.job("org/theirs")
    with service.browser() as browser:
        answer = enter(browser, f"/jobs/{theirs.job_id}")
        assert urlsplit(target(answer)).path == "/tenants"
        choice = browser.get(target(answer))
        before = browser.cookies[SESSION_COOKIE]
        forms = dict(re.findall(r'name="membership" value="(\w+)">\s*<button[^>]*>([^<]+)<', choice.text))
        assert set(forms.values()) == {LAB, name}
        (id,) = (id for id, tenant in forms.items() if tenant == name)
        chosen = browser.post(
            "/tenants", data={"csrf": csrf(choice), "membership": id, "next": f"/jobs/{theirs.job_id}"}
        )
        assert chosen.headers["location"] == f"/jobs/{theirs.job_id}"
        assert browser.get(f"/jobs/{theirs.job_id}").status_code == 200
        # the session of before is over, and the new one lasts no longer than it would have
        assert browser.cookies[SESSION_COOKIE].split(".")[2] == before.split(".")[2]
        browser.cookies.clear()
        browser.cookies.set(SESSION_COOKIE, before)
        assert browser.get("/jobs").status_code == 303


def test_membership_of_somebody_else_cannot_be_chosen(
    service: RunningDashboard, provider: SmallProvider, someone: Claims
) -> None:
    other = service.account()
    with service.database.write() as session:
        name = session.get_one(Tenant, other.tenant_id).name
        foreign = members.add(session, name, "foreign@acme.example", Role.ADMIN).id
    invite(service, someone)
    with entered(service) as browser:
        token = csrf(browser.get("/tenants"))
        assert browser.post("/tenants", data={"csrf": token, "membership": foreign}).status_code == 404
        assert browser.post("/tenants", data={"csrf": "0" * 64, "membership": foreign}).status_code == 403


def test_viewer_looks_and_changes_nothing(service: RunningDashboard, someone: Claims) -> None:
    account = service.account()
    with service.database.read() as session:
        name = session.get_one(Tenant, account.tenant_id).name
    id = invite(service, someone, Role.VIEWER, name)
    work = account.job()
    with entered(service) as browser:
        page = browser.get(f"/jobs/{work.job_id}")
        assert f"/jobs/{work.job_id}/cancel" not in page.text
        token = csrf(page)
        for what in ("cancel", "pause", "resume", "retry"):
            answer = browser.post(f"/jobs/{work.job_id}/{what}", data={"csrf": token})
            assert answer.status_code == 403
            assert "Ask an admin" in answer.text
        with service.database.write() as session:
            session.get_one(Membership, id).role = Role.MEMBER
        assert browser.post(f"/jobs/{work.job_id}/cancel", data={"csrf": token}).status_code == 303


def test_removed_member_is_out_at_once_and_stays_out_of_rules(service: RunningDashboard, someone: Claims) -> None:
    someone["groups"] = ["ml-team"]
    invite(service, someone)
    with entered(service) as browser:
        with service.database.write() as session:
            members.remove(session, LAB, someone["email"])
        assert browser.get("/jobs").status_code == 303
        assert browser.get("/events", headers={"Accept": "text/event-stream"}).status_code == 401
        assert enter(browser).status_code == 403
        # invited again: the session of before stays over
        invite(service, someone)
        assert browser.get("/jobs").status_code == 303
        assert target(enter(browser)) == START


def test_suspended_tenant_shows_its_members_nothing_until_it_is_resumed(
    service: RunningDashboard, someone: Claims
) -> None:
    account = service.account()
    with service.database.read() as session:
        name = session.get_one(Tenant, account.tenant_id).name
    id = invite(service, someone, Role.ADMIN, name)

    def suspend(at: float | None) -> None:
        with service.database.write() as session:
            session.get_one(Tenant, account.tenant_id).suspended_at = at

    with entered(service) as browser:
        suspend(1.0)
        answer = browser.get("/jobs")
        assert answer.status_code == 403
        assert "suspended" in answer.text
        with service.database.read() as session:
            assert members.still_standing(session, [id]) == set()
        # another tenant of theirs is open
        invite(service, someone, Role.VIEWER)
        assert urlsplit(target(enter(browser))).path == "/tenants"
        assert f"viewer of {LAB}" in browser.get("/jobs").text
        suspend(None)
        assert {name, LAB} <= set(re.findall(r"<button[^>]*>([^<]+)<", browser.get("/tenants").text))


def test_open_stream_ends_with_the_membership(service: RunningDashboard, someone: Claims) -> None:
    invite(service, someone)
    with entered(service) as browser:
        found = re.search(r'data-session="(\w+)"', browser.get("/jobs").text)
        assert found is not None
        with browser.stream("GET", "/events", params={"session": found[1]}, timeout=20) as stream:
            assert stream.status_code == 200
            lines = stream.iter_lines()
            assert next(lines).startswith("retry")
            with service.database.write() as session:
                members.remove(session, LAB, someone["email"])
            begun = time.monotonic()
            for _ in lines:
                pass
            assert time.monotonic() - begun < 10


def test_signing_out_ends_the_session_and_offers_the_providers(
    service: RunningDashboard, provider: SmallProvider, someone: Claims
) -> None:
    invite(service, someone)
    with entered(service) as browser:
        cookie = browser.cookies[SESSION_COOKIE]
        answer = browser.post("/logout", data={"csrf": csrf(browser.get("/jobs"))})
        assert answer.headers["location"] == "/signed-out"
        link = re.search(rf'href="({provider.issuer}/end[^"]*)"', browser.get("/signed-out").text)
        assert link is not None
        query = parse_qs(urlsplit(unescape(link[1])).query)
        back = [f"{service.url}/login"]
        assert query == {"theme": ["dark"], "client_id": [CLIENT_ID], "post_logout_redirect_uri": back}
        browser.cookies.set(SESSION_COOKIE, cookie)
        assert browser.get("/jobs").status_code == 303


def test_answer_that_this_browser_did_not_ask_for_is_refused(service: RunningDashboard, someone: Claims) -> None:
    """A link with somebody else's code would sign people in as somebody else."""
    invite(service, someone)
    with service.browser() as attacker, service.browser() as browser:
        answer = go(attacker)
        refused(browser.get(answer))  # nothing begun here
        own = go(browser)
        code = parse_qs(urlsplit(answer).query)["code"][0]
        state = parse_qs(urlsplit(own).query)["state"][0]
        # with its own state: PKCE binds the code to the browser that asked for it
        assert "invalid_grant" in refused(browser.get("/login/oidc/callback", params={"code": code, "state": state}))
        for wrong in ("", "x", state[:16], state[:-1], f"{state}x", "ü" * 20):
            go(browser)
            refused(browser.get("/login/oidc/callback", params={"code": "c", "state": wrong}))


def test_answer_counts_once(service: RunningDashboard, someone: Claims) -> None:
    invite(service, someone)
    with service.browser() as browser:
        answer = go(browser)
        attempt = dict(browser.cookies)
        assert target(browser.get(answer)) == START
        browser.cookies.clear()
        refused(browser.get(answer))  # the browser has forgotten the attempt
        for name, value in attempt.items():
            browser.cookies.set(name, value)
        assert "invalid_grant" in refused(browser.get(answer))  # and the provider the code


def test_two_tabs_sign_in_independently(service: RunningDashboard, someone: Claims) -> None:
    invite(service, someone)
    with service.browser() as browser:
        first, second = go(browser, "/variants"), go(browser, "/base-models")
        assert target(browser.get(first)) == "/variants"
        assert target(browser.get(second)) == "/base-models"


def test_changed_attempt_is_refused(service: RunningDashboard, someone: Claims) -> None:
    invite(service, someone)
    with service.browser() as browser:
        answer = go(browser)
        ((name, value),) = ((n, v) for n, v in browser.cookies.items() if n.startswith("publisher_oidc"))
        text, _, mac = value.rpartition(".")
        browser.cookies.clear()
        for changed in (f"{text[:-2]}AA.{mac}", f"{text}.{'0' * 64}", ".", mac):
            refused(browser.get(answer, headers={"Cookie": f"{name}={changed}"}))


def test_session_that_a_stranger_planted_is_not_the_one_that_begins(service: RunningDashboard, someone: Claims) -> None:
    invite(service, someone)
    planted = "mem_planted.0011.9999999999.00"
    with service.browser() as browser:
        browser.cookies.set(SESSION_COOKIE, planted, domain="127.0.0.1", path="/")
        assert target(enter(browser)) == START
        begun = browser.get("/jobs").request.headers["cookie"]
        assert planted not in begun
        assert browser.get("/jobs").status_code == 200


@pytest.mark.parametrize(
    "address", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/\t/evil.example"]
)
def test_sign_in_leads_to_no_other_site(service: RunningDashboard, someone: Claims, address: str) -> None:
    invite(service, someone)
    with service.browser() as browser:
        assert target(enter(browser, address)) == START
        token = csrf(browser.get("/tenants"))
        with service.database.read() as session:
            mine = session.scalars(select(Membership.id).where(Membership.email == someone["email"].lower())).one()
        chosen = browser.post("/tenants", data={"csrf": token, "membership": mine, "next": address})
        assert chosen.headers["location"] == START


def test_refusal_of_the_provider_is_told_without_its_words(service: RunningDashboard, provider: SmallProvider) -> None:
    with service.browser() as browser:
        state = parse_qs(urlsplit(go(browser)).query)["state"][0]
        said = {"state": state, "error": "access_denied", "error_description": "call 0900-EVIL"}
        answer = browser.get("/login/oidc/callback", params=said)
        assert refused(answer) == "Acme says: access_denied."
        assert "EVIL" not in answer.text


def test_answer_of_another_issuer_is_refused(service: RunningDashboard, someone: Claims) -> None:
    with service.browser() as browser:
        query = {name: values[0] for name, values in parse_qs(urlsplit(go(browser)).query).items()}
        refused(browser.get("/login/oidc/callback", params=query | {"iss": "https://evil.example"}))


Sign = Callable[[SmallProvider, Claims], str]


def _plain(provider: SmallProvider, claims: Claims) -> str:
    key = OctKey.import_key("x" * 32)
    body = jwt.encode({"alg": "HS256"}, claims, key, algorithms=["HS256"]).split(".")[1]
    return f"eyJhbGciOiJub25lIn0.{body}."


def _with_public_key(provider: SmallProvider, claims: Claims) -> str:
    """By hand: the library that signs refuses it, too."""
    head = urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": provider.key.kid}).encode()).rstrip(b"=")
    signed = head + b"." + urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    mac = hmac.digest(provider.key.as_pem(private=False), signed, "sha256")
    return (signed + b"." + urlsafe_b64encode(mac).rstrip(b"=")).decode()


def _with_the_secret(provider: SmallProvider, claims: Claims) -> str:
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(CLIENT_SECRET * 2), algorithms=["HS256"])


def _foreign(provider: SmallProvider, claims: Claims) -> str:
    key = RSAKey.generate_key(2048)
    return jwt.encode({"alg": "RS256", "kid": provider.key.kid}, claims, key, algorithms=["RS256"])


def _own_key_in_header(provider: SmallProvider, claims: Claims) -> str:
    key = RSAKey.generate_key(2048)
    header = {"alg": "RS256", "jwk": key.as_dict(private=False), "kid": "planted"}
    return jwt.encode(header, claims, key, algorithms=["RS256"])


def _changed(provider: SmallProvider, claims: Claims) -> str:
    head, _, tail = provider.signed(claims).split(".")
    body = provider.signed(claims | {"sub": "root"}).split(".")[1]
    return f"{head}.{body}.{tail}"


FORGERIES: dict[str, Sign] = {
    "alg none": _plain,
    "HS256 with the public key": _with_public_key,
    "HS256 with the client's secret": _with_the_secret,
    "another key under the same name": _foreign,
    "a key in the header": _own_key_in_header,
    "changed": _changed,
    "no token": lambda *_: "a.b",
    "empty": lambda *_: "",
}


@pytest.mark.parametrize("sign", FORGERIES.values(), ids=FORGERIES)
def test_token_that_the_provider_did_not_sign_is_refused(
    service: RunningDashboard, provider: SmallProvider, someone: Claims, sign: Sign
) -> None:
    invite(service, someone)
    provider.sign = lambda claims: sign(provider, claims)
    with service.browser() as browser:
        assert "is not accepted" in refused(enter(browser))


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another"},
        {"aud": None},
        {"aud": [CLIENT_ID, "another"]},  # and nobody it was issued to
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"azp": "another"},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": 1},
        {"exp": None},
        {"exp": "tomorrow"},
        {"iat": 4e9},
        {"nbf": 4e9},
        {"at_hash": "AAAA"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 300},
        {"sub": "a\x00b"},
    ],
)
def test_token_with_other_claims_is_refused(
    service: RunningDashboard, provider: SmallProvider, someone: Claims, changes: Claims
) -> None:
    invite(service, someone)
    provider.changes = changes
    with service.browser() as browser:
        assert "is not accepted" in refused(enter(browser))


def test_clocks_may_differ_by_a_minute(service: RunningDashboard, provider: SmallProvider, someone: Claims) -> None:
    invite(service, someone)
    for changes in ({"exp": time.time() - 30}, {"iat": time.time() + 30, "nbf": time.time() + 30}):
        provider.changes = changes
        with entered(service):
            pass


def test_changed_keys_are_looked_for_once_in_a_while(provider: SmallProvider, someone: Claims, tmp_path: Path) -> None:
    with serve(tmp_path, **settings_for(provider)) as service:
        Account.create(service.database, LAB)
        invite(service, someone)
        with entered(service):
            assert provider.asked.count("/keys") == 1
        provider.rotate(ECKey.generate_key("P-256", auto_kid=True), "ES256")
        with entered(service):
            assert provider.asked.count("/keys") == 2
        provider.sign = lambda claims: _own_key_in_header(provider, claims)
        for _ in range(3):
            with service.browser() as browser:
                refused(enter(browser))
        assert provider.asked.count("/keys") == 2


def test_provider_that_is_away_slow_or_wrong_leaves_keys_working(tmp_path: Path, provider: SmallProvider) -> None:
    document = "/.well-known/openid-configuration"
    wrong = {
        "huge": lambda: PlainTextResponse("[" * 2_000_000),
        "no JSON": lambda: PlainTextResponse("<html>"),
        "a list": lambda: PlainTextResponse("[]"),
        "another issuer": lambda: PlainTextResponse('{"issuer": "https://evil.example"}'),
        "moved": lambda: RedirectResponse("https://evil.example/"),
        "unwell": lambda: PlainTextResponse("", status_code=503),
    }
    with serve(tmp_path, **settings_for(provider)) as service:
        account = service.account()
        with service.browser() as browser:
            for answer in wrong.values():
                provider.broken[document] = answer
                assert "did not answer as it should" in refused(browser.get("/login/oidc"), 503)
            provider.broken.clear()
            for path, answer in (("/token", wrong["huge"]), ("/token", wrong["no JSON"]), ("/keys", wrong["huge"])):
                provider.user = {"sub": "s"}
                provider.broken[path] = answer
                assert "did not answer as it should" in refused(enter(browser), 503)
                provider.broken.clear()
            assert sign_in(browser, account.key).status_code == 303
    away = settings_for(provider, oidc_issuer="http://127.0.0.1:9")
    with serve(tmp_path / "away", **away) as service, service.browser() as browser:
        refused(browser.get("/login/oidc"), 503)
        assert sign_in(browser, service.account().key).status_code == 303


def test_provider_that_does_not_answer_is_given_up(tmp_path: Path, provider: SmallProvider) -> None:
    def silent() -> PlainTextResponse:
        asked.set()
        released.wait(20)
        return PlainTextResponse("")

    asked, released = threading.Event(), threading.Event()
    provider.broken["/.well-known/openid-configuration"] = silent
    with serve(tmp_path, **settings_for(provider, oidc_seconds=0.3)) as service, service.browser() as browser:
        try:
            problem = refused(browser.get("/login/oidc"), 503)
            assert asked.wait(20)
            assert provider.issuer in problem
            assert sign_in(browser, service.account().key).status_code == 303
        finally:
            released.set()


def test_without_settings_there_is_no_button_and_no_way_in(dashboard: RunningDashboard) -> None:
    with dashboard.browser() as browser:
        assert "/login/oidc" not in browser.get("/login").text
        assert browser.get("/login/oidc").status_code == 404
        assert browser.get("/login/oidc/callback?code=x&state=y").status_code == 404


def test_form_that_signs_out_of_a_key_has_nothing_to_do_with_the_provider(service: RunningDashboard) -> None:
    account = service.account()
    with service.browser() as browser:
        assert sign_in(browser, account.key).status_code == 303
        answer = browser.post("/logout", data={"csrf": csrf(browser.get("/jobs"))})
        assert answer.headers["location"] == "/login"

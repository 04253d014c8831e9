"""Signing in: keys are tried, kept for their owner alone, and shown by nothing."""

from __future__ import annotations

import json
import socket
import stat
import time

import pytest

from publisher.client import services
from tests.api.conftest import RunningApi, Tenant
from tests.client.conftest import Shell


def test_a_key_is_tried_and_kept_for_its_owner_alone(shell: Shell, tenant: Tenant) -> None:
    done = shell("login", f"{tenant.url}/", stdin=f"{tenant.key}\n")
    assert (done.status, done.out) == (0, "")
    assert tenant.name in done.err
    assert stat.S_IMODE(services.file().stat().st_mode) == 0o600
    assert stat.S_IMODE(services.file().parent.stat().st_mode) == 0o700
    me = json.loads(shell("whoami", "--json").out)
    assert (me["tenant_name"], me["key_name"]) == (tenant.name, "test")
    assert shell("whoami", "-q").out == f"{tenant.name}\n"


def test_a_key_that_is_refused_is_not_kept(shell: Shell, api: RunningApi) -> None:
    done = shell("login", api.url, stdin="loram_wrong-key\n")
    assert done.status == 5
    assert f"{api.url}: The API key is missing, wrong, revoked or expired." in done.err
    assert not services.file().exists()


def test_no_answer_has_a_key_in_it(signed_in: Shell, tenant: Tenant) -> None:
    said = [signed_in(*command) for command in (["whoami"], ["whoami", "--json"], ["keys", "list", "--json"])]
    assert all(done.status == 0 and tenant.key not in done.out + done.err for done in said)
    assert tenant.key not in repr(services.read())


def test_without_a_key_the_way_to_one_is_told(shell: Shell) -> None:
    done = shell("jobs", "list")
    assert done.status == 5
    assert "PUBLISHER_API_KEY" in done.err
    assert "publisher login" in done.err


def test_services_go_by_name_and_the_last_is_meant_where_none_is_named(
    signed_in: Shell, api: RunningApi, tenant: Tenant
) -> None:
    other = api.tenant()
    assert signed_in("login", other.url, "--name", "other", stdin=other.key).status == 0
    assert signed_in("whoami", "-q").out.strip() == other.name
    assert signed_in("whoami", "-q", "--service", "lab").out.strip() == tenant.name
    unknown = signed_in("whoami", "--service", "lba")
    assert (unknown.status, "There are lab and other" in unknown.err) == (4, True)
    assert signed_in("logout").status == 0
    assert signed_in("whoami", "-q").out.strip() == tenant.name


def test_what_the_environment_says_wins_and_its_key_goes_to_no_kept_address(
    signed_in: Shell, api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = api.tenant()
    monkeypatch.setenv("PUBLISHER_URL", other.url)
    monkeypatch.setenv("PUBLISHER_API_KEY", other.key)
    assert signed_in("whoami", "-q").out.strip() == other.name
    monkeypatch.delenv("PUBLISHER_URL")
    assert services.chosen().url == services.LOCAL
    monkeypatch.delenv("PUBLISHER_API_KEY")
    monkeypatch.setenv("PUBLISHER_URL", "http://elsewhere.invalid")
    assert signed_in("whoami").status == 5


def test_a_revoked_key_is_forgotten_and_works_no_more(signed_in: Shell, tenant: Tenant) -> None:
    made = json.loads(signed_in("keys", "create", "laptop", "--scope", "hub:read", "--json").out)
    signed_in("login", tenant.url, "--name", "laptop", stdin=made["key"])
    assert signed_in("logout", "--revoke").status == 0
    assert signed_in("login", tenant.url, stdin=made["key"]).status == 5


def test_an_address_where_nobody_listens_is_told_at_once(shell: Shell) -> None:
    started = time.monotonic()
    done = shell("login", "http://127.0.0.1:9", stdin="key")
    assert done.status == 1
    assert "http://127.0.0.1:9 does not answer" in done.err
    assert time.monotonic() - started < 5


def test_an_address_that_says_nothing_is_told_within_five_seconds(shell: Shell) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:  # nobody accepts them, and then there is no room for more
            each.setblocking(False)
            each.connect_ex(silent.getsockname())
        started = time.monotonic()
        done = shell("login", url, stdin="key")
        took = time.monotonic() - started
        for each in waiting:
            each.close()
    assert (done.status, took < 5) == (1, True)
    assert f"{url} does not answer" in done.err


@pytest.mark.parametrize("url", ["ftp://host", "http://", "https://me:secret@host", "http://host:port"])
def test_what_is_no_address_is_refused(shell: Shell, url: str) -> None:
    assert shell("login", url, stdin="key").status == 4


def test_an_address_without_encryption_is_told(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from publisher.client.commands.access import address

    assert address("lab.example.org/") == "https://lab.example.org"
    assert address("http://lab.example.org:8000/") == "http://lab.example.org:8000"

"""One try, against receivers that do what they should not, and names that lead where they must not."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore
import pytest
from httpx_secure import SSRFProtectionError
from standardwebhooks import Webhook, WebhookVerificationError

from publisher.store.webhooks import sealer
from publisher.webhooks.sender import BODY_BYTES, Answer, Message, Sender
from publisher.webhooks.signature import new_secret
from tests.servers import listen
from tests.webhooks.certificates import certificate, server_context
from tests.webhooks.receiver import (
    Manner,
    Receiver,
    answering,
    cut,
    cut_body,
    dripping_headers,
    endless_header,
    huge,
    receiving,
)
from tests.webhooks.rows import fast

SECRET, OLD = new_secret(), new_secret()
#: an address in the internet, which nothing here connects to
PUBLIC = "93.184.215.14"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def message(folder: Path, url: str, *secrets: str) -> Message:
    sealed = [sealer(fast(folder)).seal(secret, "hook_1") for secret in secrets or (SECRET,)]
    return Message(url, "hook_1", "evt_1", "job.failed", 1700000000.25, {"job_id": "job_1", "ü": 1.5}, sealed)


def sent(folder: Path, to: Message | str, **changes: Any) -> Answer:
    async def once() -> Answer:
        async with Sender(fast(folder, **changes)) as sender:
            return await sender.send(message(folder, to) if isinstance(to, str) else to)

    return asyncio.run(once())


def test_the_message_is_what_standard_webhooks_says(receiver: Receiver, tmp_path: Path) -> None:
    answer = sent(tmp_path, receiver.url)
    assert (answer.status, answer.error) == (204, None)
    (got,) = receiver.received
    verified = Webhook(SECRET).verify(got.body, got.headers)
    assert verified == {
        "type": "job.failed",
        "timestamp": "2023-11-14T22:13:20.250Z",
        "data": {"job_id": "job_1", "ü": 1.5},
    }
    assert got.headers["content-type"] == "application/json"
    assert got.headers["host"] == receiver.url.split("/")[2]
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(got.body, got.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(got.body + b" ", got.headers)


def test_receivers_that_know_the_secret_of_now_or_of_before_are_content(receiver: Receiver, tmp_path: Path) -> None:
    assert sent(tmp_path, message(tmp_path, receiver.url, SECRET, OLD)).error is None
    (got,) = receiver.received
    for secret in (SECRET, OLD):
        Webhook(secret).verify(got.body, got.headers)


def test_a_secret_that_cannot_be_read_any_more_sends_nothing_and_says_what_to_do(
    receiver: Receiver, tmp_path: Path
) -> None:
    answer = sent(tmp_path, receiver.url, secret="another secret of the service")
    assert "rotate-secret" in str(answer.error)
    assert receiver.received == []


@pytest.mark.parametrize("manner", [huge, cut_body], ids=["huge", "cut"])
def test_who_has_said_2xx_has_it_whatever_comes_after(receiver: Receiver, tmp_path: Path, manner: Manner) -> None:
    receiver.manner = manner
    answer = sent(tmp_path, receiver.url)
    assert (answer.status, answer.error) == (200, None)
    assert answer.seconds < 2


def test_of_a_body_without_end_little_is_read(tmp_path: Path) -> None:
    taken = 0

    def counting(connection: socket.socket, number: int) -> None:
        nonlocal taken
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while taken < 2**30:
                taken += connection.send(b"x" * 65536)
        except OSError:
            return

    with receiving(counting) as receiver:
        assert sent(tmp_path, receiver.url).error is None
    # what the kernel has taken of us besides
    assert BODY_BYTES <= taken < 2**24


@pytest.mark.parametrize("manner", [dripping_headers, cut, endless_header], ids=["dripping", "cut", "endless header"])
def test_an_answer_that_does_not_come_is_a_failure_in_time(receiver: Receiver, tmp_path: Path, manner: Manner) -> None:
    receiver.manner = manner
    answer = sent(tmp_path, receiver.url, webhook_timeout_seconds=0.5)
    assert answer.error
    assert answer.status is None
    assert answer.seconds < 3


def test_one_that_never_answers_is_left_in_time(tmp_path: Path) -> None:
    with receiving(closed=True) as receiver:
        answer = sent(tmp_path, receiver.url, webhook_timeout_seconds=0.3)
        assert answer.error == "no answer within 0.3 s"
        assert 0.3 <= answer.seconds < 2


@pytest.mark.parametrize("status", [200, 202, 299])
def test_every_2xx_is_success(receiver: Receiver, tmp_path: Path, status: int) -> None:
    receiver.manner = answering(status)
    assert sent(tmp_path, receiver.url).error is None


@pytest.mark.parametrize("never", ["1 Jan 99999999999999999999 00:00:00 GMT", "9" * 400])
def test_nonsense_about_when_to_come_again_makes_no_failure(receiver: Receiver, tmp_path: Path, never: str) -> None:
    receiver.manner = answering(204, f"Retry-After: {never}")
    assert sent(tmp_path, receiver.url).error is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_failures_and_are_not_followed(receiver: Receiver, tmp_path: Path, status: int) -> None:
    with receiving() as elsewhere:
        receiver.manner = answering(status, f"Location: {elsewhere.url}")
        answer = sent(tmp_path, receiver.url)
    assert answer.status == status
    assert "redirects are not followed" in str(answer.error)
    assert elsewhere.received == []


@pytest.mark.parametrize(("status", "gone"), [(400, False), (404, False), (410, True), (500, False), (503, False)])
def test_other_statuses_are_failures(receiver: Receiver, tmp_path: Path, status: int, gone: bool) -> None:
    receiver.manner = answering(status, "Retry-After: 7", body=b"reasons that nobody reads")
    answer = sent(tmp_path, receiver.url)
    assert (answer.status, answer.error, answer.retry_after, answer.gone) == (status, f"answered {status}", 7.0, gone)


def test_a_receiver_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    with listen() as taken:
        port = taken.getsockname()[1]
    assert sent(tmp_path, f"http://127.0.0.1:{port}/").error
    assert "is not known" in str(sent(tmp_path, "http://no-such-host.invalid/").error)


def test_proxies_of_the_environment_are_not_asked(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert sent(tmp_path, receiver.url).error is None
        assert proxy.received == []
    assert len(receiver.received) == 1


PRIVATE = ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "0.0.0.0", "2130706433", "0x7f.1", "127.1"]


@pytest.mark.parametrize("host", PRIVATE)
def test_whatever_leads_here_is_refused_without_a_connection(tmp_path: Path, host: str) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        answer = sent(tmp_path, f"http://{host}:{server.getsockname()[1]}/", allow_private_addresses=False)
        assert "not a public address" in str(answer.error)
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """A name server that gives one address after the other; the names that it was asked for."""
    asked: list[str] = []

    def getaddrinfo(host: Any, port: Any, *args: Any, **more: Any) -> list[Any]:
        asked.append(str(host))
        address = answers[min(len(asked), len(answers)) - 1]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    "address",
    ["10.0.0.8", "169.254.169.254", "192.168.1.1", "100.64.0.1", "fd00:ec2::254", "fe80::1", "ff02::1", "224.0.1.1"],
)
def test_names_of_private_addresses_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolving(monkeypatch, address)
    answer = sent(tmp_path, "http://hook.example/", allow_private_addresses=False)
    assert answer.error == f"hook.example leads to {address}, which is not a public address"


def test_a_name_that_leads_elsewhere_a_moment_later_is_dialled_where_it_was_looked_at(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when it is checked, this machine from then on."""
    port = receiver.url.split(":")[2].split("/")[0]
    dialled: list[str] = []

    async def connect(self: Any, host: str, port: int, **more: Any) -> Any:
        dialled.append(host)
        raise httpcore.ConnectError("nothing goes outside from here")

    asked = resolving(monkeypatch, PUBLIC, "127.0.0.1")
    monkeypatch.setattr("httpcore._backends.auto.AutoBackend.connect_tcp", connect)
    answer = sent(tmp_path, f"http://rebinding.example:{port}/", allow_private_addresses=False)
    assert answer.error
    assert asked == ["rebinding.example"]
    assert dialled == [PUBLIC]
    assert receiver.received == []


def test_over_tls_the_name_is_asked_for_and_has_to_be_in_the_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though an address is dialled."""
    asked: list[str | None] = []
    path = certificate(tmp_path, "hook.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    resolving(monkeypatch, "127.0.0.1")
    with receiving(tls=server_context(path, asked)) as receiver:
        port = receiver.url.split(":")[2].split("/")[0]
        assert sent(tmp_path, f"https://hook.example:{port}/path?x=1").error is None
        (got,) = receiver.received
        assert (got.path, got.headers["host"], asked) == ("/path?x=1", f"hook.example:{port}", ["hook.example"])
        for name in ("other.example", "127.0.0.1"):
            assert "CERTIFICATE_VERIFY_FAILED" in str(sent(tmp_path, f"https://{name}:{port}/").error)
        monkeypatch.delenv("SSL_CERT_FILE")
        assert "CERTIFICATE_VERIFY_FAILED" in str(sent(tmp_path, f"https://hook.example:{port}/").error)
    assert len(receiver.received) == 1


def test_the_connection_itself_is_guarded_whoever_asks_for_it(receiver: Receiver, tmp_path: Path) -> None:
    """Were names looked at wrongly, or not at all."""

    async def dial(host: str) -> None:
        async with Sender(fast(tmp_path, allow_private_addresses=False)) as sender:
            await sender._client.post(receiver.url.replace("127.0.0.1", host), content=b"{}")

    for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "localhost"):
        with pytest.raises(SSRFProtectionError):
            asyncio.run(dial(host))
    assert receiver.received == []


def test_a_name_server_that_hangs_holds_back_no_other_message(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **more: Any) -> list[Any]:
        if "slow" in str(host):
            time.sleep(1)
        return list(known("127.0.0.1", *args, **more))

    async def both() -> tuple[Answer, list[Answer]]:
        async with Sender(fast(tmp_path, webhook_timeout_seconds=0.3)) as sender:
            slow = [sender.send(message(tmp_path, "http://slow.example/")) for _ in range(8)]
            waiting = [asyncio.create_task(each) for each in slow]
            await asyncio.sleep(0)
            return await sender.send(message(tmp_path, receiver.url)), list(await asyncio.gather(*waiting))

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    fine, late = asyncio.run(both())
    assert fine.error is None
    assert {each.error for each in late} == {"no answer within 0.3 s"}

"""A tenant's Hub is dialled at public addresses alone, whatever its name, redirects and answers say."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from huggingface_hub import HfApi, get_session, set_client_factory
from huggingface_hub.utils._http import default_client_factory
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from publisher.hub_client.addresses import is_public
from publisher.hub_client.guard import PrivateAddress, guard_clients, public_only
from publisher.hub_client.patience import impatient
from tests.servers import serve


@pytest.fixture(params=[guard_clients, impatient], autouse=True)
def _client(request: pytest.FixtureRequest) -> Iterator[None]:
    """As the API has it, and as jobs have it."""
    request.param()
    yield
    set_client_factory(default_client_factory)


@pytest.fixture
def hub() -> Iterator[str]:
    """Knows whose every token is."""
    app = Starlette(routes=[Route("/api/whoami-v2", lambda request: JSONResponse({"name": "org"}))])
    with serve(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("::1", "fe80::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::"),
    ],
)
def test_addresses_that_only_this_network_reaches_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are(address: str) -> None:
    assert is_public(ip_address(address))


def test_the_guard_is_for_the_block_alone(hub: str) -> None:
    api = HfApi(endpoint=hub, token="hf_x")
    assert api.whoami() == {"name": "org"}
    with public_only(), pytest.raises(PrivateAddress, match=r"127\.0\.0\.1"):
        api.whoami()  # though a connection to it is open
    with public_only(unless=True):
        assert api.whoami() == {"name": "org"}
    assert api.whoami() == {"name": "org"}


def test_a_name_that_resolves_to_this_machine_is_refused_and_named(hub: str) -> None:
    with public_only(), pytest.raises(PrivateAddress, match=r"localhost \((127\.0\.0\.1|::1)\)"):
        get_session().get(hub.replace("127.0.0.1", "localhost"))


def test_a_name_is_refused_if_any_of_its_addresses_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: mixed)
    with public_only(), pytest.raises(PrivateAddress, match=r"10\.0\.0\.1"):
        get_session().get("http://hub.example/")


def test_a_proxy_of_the_environment_does_not_dial_for_us(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", hub)
    guard_clients()
    with public_only(), pytest.raises(PrivateAddress):
        get_session().get("http://127.0.0.1:9/")

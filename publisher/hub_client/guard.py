"""Hubs that tenants name are on the public internet: what a name resolves to is looked at where it is dialled.

So neither a name that resolves to this network, nor one that does so only the second time, nor a redirect or an
upload's address in a Hub's answer leads to a service that only this machine can reach.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from ipaddress import ip_address

import httpcore2
import httpx2
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import hf_request_event_hook

from publisher.errors import CredentialFault
from publisher.hub_client.addresses import is_public

_guarding: ContextVar[bool] = ContextVar("guarding", default=False)
_WAY_OUT = "Name a Hub on the internet, or have the operator set PUBLISHER_ALLOW_PRIVATE_ADDRESSES."

SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class PrivateAddress(CredentialFault):
    """A tenant's Hub, or where it sends us, is at a private, loopback or link-local address."""


@contextmanager
def public_only(*, unless: bool = False) -> Iterator[None]:
    """What this thread asks of Hubs inside the block goes to public addresses, or raises PrivateAddress."""
    token = _guarding.set(not unless)
    try:
        yield
    finally:
        _guarding.reset(token)


def guard_clients() -> None:
    """Have this process's huggingface_hub heed `public_only`."""
    keep_addresses_unlogged()
    set_client_factory(_plain_client)


def keep_addresses_unlogged() -> None:
    """Clients log every address that they ask for, whatever level the process logs at: those of uploads and downloads
    are signed, and open what they lead to."""
    for name in ("httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


class GuardedClient(httpx2.Client):
    """Inside `public_only` it has connections of its own: none that was opened to a private address is used again."""

    def _transport_for_url(self, url: httpx2.URL) -> httpx2.BaseTransport:
        return self._guarded if _guarding.get() else super()._transport_for_url(url)

    @cached_property
    def _guarded(self) -> httpx2.HTTPTransport:
        """Past the proxies of the environment: a proxy would resolve the name, and nobody look at the address."""
        transport = httpx2.HTTPTransport()
        transport._pool._network_backend = _PublicAddresses()
        return transport

    def close(self) -> None:
        super().close()
        if "_guarded" in self.__dict__:
            self._guarded.close()


def _plain_client() -> httpx2.Client:
    """As huggingface_hub's own."""
    return GuardedClient(event_hooks={"request": [hf_request_event_hook]}, follow_redirects=True, timeout=None)


class _PublicAddresses(httpcore2.SyncBackend):
    """Connects to the very addresses that it looked at."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore2.NetworkStream:
        *others, last = public_addresses(host, port)
        for address in others:
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return super().connect_tcp(last, port, timeout, local_address, socket_options)


def public_addresses(host: str, port: int) -> list[str]:
    """What `host` resolves to; PrivateAddress if one of them is not on the public internet."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore2.ConnectError(f"{host} cannot be resolved: {error}") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if not is_public(ip_address(address.partition("%")[0])):
            place = host if host == address else f"{host} ({address})"
            raise PrivateAddress(f"{place} is not an address of the public internet.", way_out=_WAY_OUT)
    return addresses

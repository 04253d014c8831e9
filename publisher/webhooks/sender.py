"""One try: a POST that ends in time, goes where it may, and believes nothing that comes back but the status."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from typing import Self

import httpx
from httpx_secure import SSRFProtectionError, httpx_ssrf_protection
from pydantic_core import to_json

from publisher.hub_client.addresses import Address, is_public
from publisher.settings import Settings
from publisher.store.webhooks import sealer
from publisher.webhooks.retries import iso, retry_after
from publisher.webhooks.signature import signed_headers

#: of an answer's body so much is taken, and thrown away, so that the receiver can end what it says
BODY_BYTES, BODY_SECONDS = 64 * 1024, 1.0
#: names that are looked up at once: a name server that hangs holds one of these, and nothing else
_LOOKUPS = 64
_LOST_SECRET = "its signing secret was sealed with another secret of the service: POST …/rotate-secret makes one"  # noqa: S105
_MOST_OF_ERROR = 500


@dataclass(frozen=True)
class Message:
    """An event for a webhook, whose secrets are as they are sealed, the one of now first."""

    url: str
    webhook_id: str
    event_id: str
    type: str
    at: float
    data: dict[str, object]
    sealed: Sequence[str]

    @property
    def body(self) -> str:
        """The same at every try."""
        return to_json({"type": self.type, "timestamp": iso(self.at), "data": self.data}).decode()


@dataclass(frozen=True)
class Answer:
    """`error` is None if it was delivered. `retry_after` in seconds; `gone`: the receiver wants nothing any more."""

    status: int | None
    error: str | None
    seconds: float
    retry_after: float | None = None
    gone: bool = False


class Refused(Exception):
    """Not sent: it must not go there."""


class Sender:
    """Lives in one event loop, from entering to leaving."""

    def __init__(self, settings: Settings) -> None:
        self._seconds = settings.webhook_timeout_seconds
        self._private = settings.allow_private_addresses
        self._sealer = sealer(settings)
        self._lookups = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="webhook-names")
        self._client = httpx.AsyncClient(
            trust_env=False,  # a proxy would dial for us, whatever the address
            verify=httpx.create_ssl_context(),  # of the environment only whom it trusts
            timeout=httpx.Timeout(self._seconds, connect=self._seconds / 3),  # of several addresses one may be dead
            follow_redirects=False,
            # a connection is for one try: by its address alone nobody could tell whose it is
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        if not self._private:
            httpx_ssrf_protection(self._client, custom_validator=_may_be_dialled)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._client.aclose()
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def send(self, message: Message) -> Answer:
        """Raises nothing but CancelledError: whatever goes wrong is the answer's error."""
        begun = time.monotonic()
        status, error, asked = None, None, None
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._post(message)
            await _drain(response)
            status, asked = response.status_code, retry_after(response.headers.get("retry-after"), time.time())
            error = None if response.is_success else _in_words(status)
        except TimeoutError:
            error = f"no answer within {self._seconds:g} s"
        except Refused as refusal:
            error = str(refusal)
        except SSRFProtectionError as refusal:
            error = f"{refusal.ip_addr} is not a public address"
        except httpx.TimeoutException:
            error = f"no answer within {self._seconds:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as failure:
            error = str(failure) or type(failure).__name__
        error = error and error[:_MOST_OF_ERROR]
        return Answer(status, error, time.monotonic() - begun, asked, gone=status == HTTPStatus.GONE)

    async def _post(self, message: Message) -> httpx.Response:
        url, body = httpx.URL(message.url), message.body
        host = url.raw_host.decode("ascii")
        headers = {
            "host": url.netloc.decode("ascii"),
            "content-type": "application/json",
            "user-agent": "loram-publisher",
            "accept-encoding": "identity",
            **signed_headers(message.event_id, time.time(), body, self._secrets(message)),
        }
        failure: httpx.TransportError | None = None
        for address in await self._addresses(url):
            # the address that was looked at is the one that is dialled, whatever its name leads to by then; the
            # certificate has to be the name's
            request = self._client.build_request(
                "POST",
                url.copy_with(host=str(address)),
                headers=headers,
                content=body,
                extensions={"sni_hostname": host},
            )
            try:
                return await self._client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or httpx.ConnectError(f"{host} has no address")

    def _secrets(self, message: Message) -> list[str]:
        """The one of now, and the one of before where it can still be read."""
        opened = [self._sealer.open(sealed, message.webhook_id) for sealed in message.sealed]
        if opened[0] is None:
            raise Refused(_LOST_SECRET)
        return [secret for secret in opened if secret is not None]

    async def _addresses(self, url: httpx.URL) -> list[Address]:
        """Refused if one of them is private: a name that leads there as well is not meant for us."""
        host, port = url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._lookups, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            )
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{host} is not known: {error}") from error
        addresses = list(dict.fromkeys(ip_address(str(place[0])) for *_, place in found))
        for address in addresses:
            if not self._private and not is_public(address):
                raise Refused(f"{host} leads to {address}, which is not a public address")
        return addresses


def _may_be_dialled(host: str, address: Address, port: int) -> bool:
    return is_public(address)


async def _drain(response: httpx.Response) -> None:
    """Take a short body; of a long, slow or broken one nobody needs the rest. The status was said before it."""
    taken = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in response.aiter_raw():
                taken += len(piece)
                if taken >= BODY_BYTES:
                    break
    except (httpx.HTTPError, TimeoutError):
        pass
    finally:
        await response.aclose()


def _in_words(status: int) -> str:
    if 300 <= status < 400:
        return f"answered {status}: redirects are not followed, the webhook's URL has to be the receiver's own"
    return f"answered {status}"

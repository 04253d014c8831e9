"""Where a webhook may lead: a URL as it is asked for."""

from __future__ import annotations

from ipaddress import ip_address

import httpx

from publisher.errors import RequestFault
from publisher.hub_client.addresses import is_public
from publisher.settings import Settings

MOST_LETTERS = 2000
_LAST_PORT = 65535

_OWN_NAMES = ("localhost", ".localhost", ".local", ".internal")
_WAY_OUT = "Give an address that everybody can reach, or have the operator set PUBLISHER_ALLOW_PRIVATE_ADDRESSES."


def check_url(text: str, settings: Settings) -> str:
    """The URL as it is dialled. RequestFault for one that could never be sent to, or must not."""
    if len(text) > MOST_LETTERS:
        raise _refused(f"the URL has {len(text)} letters; {MOST_LETTERS} are enough.")
    try:
        url = httpx.URL(text)
        host = url.host  # decoded only now
    except (httpx.InvalidURL, ValueError) as error:
        raise _refused(f"this is no URL: {error}.") from error
    if url.scheme not in {"http", "https"} or not host or not (url.port is None or 0 < url.port <= _LAST_PORT):
        raise _refused("this is not https://host/….")
    if url.scheme == "http" and not settings.allow_http_webhooks:
        way_out = "Use https, or have the operator set PUBLISHER_ALLOW_HTTP_WEBHOOKS."
        raise _refused("http shows what is sent to everybody on its way.", way_out)
    if url.userinfo:
        raise _refused("the URL holds a user or a password.", "What is sent is signed: check that instead.")
    if url.fragment:
        raise _refused("the URL has a fragment (#…), which is never sent.")
    if not settings.allow_private_addresses and _is_own(host):
        raise _refused(f"{host} is a private address.", _WAY_OUT)
    return str(url)


def _is_own(host: str) -> bool:
    try:
        return not is_public(ip_address(host))
    except ValueError:
        name = host.rstrip(".").lower()
        return name == _OWN_NAMES[0] or name.endswith(_OWN_NAMES[1:])


def _refused(message: str, way_out: str | None = None) -> RequestFault:
    return RequestFault(message, field="url", way_out=way_out)

"""Where a webhook may lead: a URL as it is asked for, and an address as it is dialled."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

from publisher.errors import RequestFault
from publisher.settings import Settings

Address = IPv4Address | IPv6Address

MOST_LETTERS = 2000

#: IPv4 within IPv6 for translators (RFC 6052), and as it was written before there were mapped addresses (RFC 4291)
_NAT64, _COMPATIBLE = IPv6Network("64:ff9b::/96"), IPv6Network("::/96")
#: what Python counts as public, depending on its patch version, though it is not: addresses of protocols, clouds' hosts
#: that answer their own machines alone (Oracle's in the first, Azure's), relays, local translators, documentation
_NOT_PUBLIC = tuple(
    map(
        ip_network,
        ("192.0.0.0/24", "168.63.129.16", "192.88.99.0/24", "64:ff9b:1::/48", "2001::/23", "3fff::/20", "5f00::/16"),
    )
)
_OWN_NAMES = ("localhost", ".localhost", ".local", ".internal")
_WAY_OUT = "Give an address that everybody can reach, or have the operator set PUBLISHER_ALLOW_PRIVATE_ADDRESSES."


def check_url(text: str, settings: Settings) -> str:
    """The URL as it is dialled. RequestFault for one that could never be sent to, or must not."""
    if len(text) > MOST_LETTERS:
        raise _refused(f"the URL has {len(text)} letters; {MOST_LETTERS} are enough.")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise _refused(f"this is no URL: {error}.") from error
    if url.scheme not in {"http", "https"} or not url.host or url.port == 0:
        raise _refused("this is not https://host/….")
    if url.scheme == "http" and not settings.allow_http_webhooks:
        way_out = "Use https, or have the operator set PUBLISHER_ALLOW_HTTP_WEBHOOKS."
        raise _refused("http shows what is sent to everybody on its way.", way_out)
    if url.userinfo:
        raise _refused("the URL holds a user or a password.", "What is sent is signed: check that instead.")
    if url.fragment:
        raise _refused("the URL has a fragment (#…), which is never sent.")
    if not settings.allow_private_addresses and _is_own(url.host):
        raise _refused(f"{url.host} is a private address.", _WAY_OUT)
    return str(url)


def is_public(address: Address) -> bool:
    """Whether it is somewhere in the internet: not this machine, its network, its cloud, nor many machines at once."""
    inner = _embedded(address) if isinstance(address, IPv6Address) else None
    if inner is not None:
        return is_public(inner)
    if isinstance(address, IPv6Address) and address.is_site_local:
        return False
    if address.is_multicast or address.is_reserved or any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for."""
    teredo = address.teredo
    if address.ipv4_mapped or address.sixtofour or teredo:
        return address.ipv4_mapped or address.sixtofour or (teredo and teredo[1])
    if address in _NAT64 or address in _COMPATIBLE:
        return IPv4Address(address.packed[-4:])
    return None


def _is_own(host: str) -> bool:
    try:
        return not is_public(ip_address(host))
    except ValueError:
        name = host.rstrip(".").lower()
        return name == _OWN_NAMES[0] or name.endswith(_OWN_NAMES[1:])


def _refused(message: str, way_out: str | None = None) -> RequestFault:
    return RequestFault(message, field="url", way_out=way_out)

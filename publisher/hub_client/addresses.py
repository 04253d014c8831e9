"""Which addresses are on the public internet: where webhooks go, and Hubs that tenants name."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address

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

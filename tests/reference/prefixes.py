"""Longest-prefix match, slow and obvious: every prefix is asked, the longest that holds the address wins."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def normal_address(text: str) -> Address:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def find(prefixes: Mapping[Network, int], address: Address) -> int:
    """Value of the longest matching prefix, 0 where none matches."""
    holding = [(network.prefixlen, value) for network, value in prefixes.items() if address in network]
    return max(holding)[1] if holding else 0


def packed(address: Address) -> bytes:
    """The 16 bytes that the core holds."""
    if isinstance(address, ipaddress.IPv4Address):
        return b"\0" * 10 + b"\xff\xff" + address.packed
    return address.packed

"""Networks as the enforcer holds them: the address in network byte order, then one byte of prefix length.

Owns that form and its texts. 5 bytes are IPv4, 17 are IPv6; host bits are zero. As bytes they are small, hash fast,
go into messages as they are, and begin with what the kernel wants as a key.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from scrubber.errors import ValueRefused

Net = bytes

V4_BYTES, V6_BYTES = 5, 17
V4_HOST_PLEN = 32
V6_HOST_PLEN = 64  # an IPv6 client is its /64
RANGE_BITS = 8  # a range: the 256 clients of an IPv4 /24 or an IPv6 /56


def net_of(text: str) -> Net:
    """ "198.51.100.7", "198.51.100.0/24", "2001:db8::/64" → bytes. An address alone is its /32 or /128. ValueRefused:
    none, or bits set behind the prefix."""
    try:
        found = ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        raise ValueRefused(
            f"{text!r} is not a network", expected="an address, or a prefix without host bits"
        ) from error
    return found.network_address.packed + bytes([found.prefixlen])


def net_text(net: Net) -> str:
    """As people write it; a whole IPv4 address alone."""
    family = socket.AF_INET if is_v4(net) else socket.AF_INET6
    address = socket.inet_ntop(family, net[:-1])
    return address if plen(net) == 8 * len(net[:-1]) else f"{address}/{plen(net)}"


def is_v4(net: Net) -> bool:
    return len(net) == V4_BYTES


def plen(net: Net) -> int:
    return net[-1]


def is_host(net: Net) -> bool:
    """Whether it is one client: an IPv4 address, an IPv6 /64. All others are prefixes."""
    return net[-1] == (V4_HOST_PLEN if len(net) == V4_BYTES else V6_HOST_PLEN)


def supernet(net: Net, length: int) -> Net:
    """The prefix of that length around it, which is no narrower."""
    size = len(net) - 1
    spare = 8 * size - length
    return (int.from_bytes(net[:-1], "big") >> spare << spare).to_bytes(size, "big") + bytes([length])


def spare_bits(net: Net) -> int:
    """It holds 2 to the power of these clients; below 0: a part of one."""
    return (V4_HOST_PLEN if len(net) == V4_BYTES else V6_HOST_PLEN) - net[-1]


def range_of(net: Net) -> bytes:
    """What the clients of its range have in common: the first bytes of their addresses."""
    return net[:3] if len(net) == V4_BYTES else net[:7]


def is_v4_range(common: bytes) -> bool:
    return len(common) == V4_BYTES - 2


def host_in_range(common: bytes, index: int) -> Net:
    """One of the 256 clients of a range."""
    if is_v4_range(common):
        return common + bytes([index, V4_HOST_PLEN])
    return common + bytes([index, 0, 0, 0, 0, 0, 0, 0, 0, V6_HOST_PLEN])


def prefix_in_range(common: bytes, index: int, bits: int) -> Net:
    """The prefix of 2^`bits` clients, at most 256, in which a client of a range lies."""
    host = bytearray(host_in_range(common, index >> bits << bits))
    host[-1] -= bits
    return bytes(host)


def sound(net: Net) -> bool:
    """Whether these bytes are a network: a length that there is, a prefix that fits, no host bits."""
    bits = 8 * (len(net) - 1)
    if bits not in (32, 128) or net[-1] > bits:
        return False
    return int.from_bytes(net[:-1], "big") & ((1 << (bits - net[-1])) - 1) == 0


def demand_sound(nets: Iterable[Net]) -> None:
    """ValueRefused: one of them is no network, which the caller should have seen."""
    for net in nets:
        if not sound(net):
            raise ValueRefused(f"{net!r} is not a network", expected="an address, a prefix length, no host bits")


def overlap(a: Net, b: Net) -> bool:
    """Whether they share an address."""
    if len(a) != len(b):
        return False
    spare = 8 * (len(a) - 1) - min(a[-1], b[-1])
    return int.from_bytes(a[:-1], "big") >> spare == int.from_bytes(b[:-1], "big") >> spare


def within(narrow: Net, wide: Net) -> bool:
    """Whether all of `narrow` lies in `wide`."""
    return narrow[-1] >= wide[-1] and overlap(narrow, wide)

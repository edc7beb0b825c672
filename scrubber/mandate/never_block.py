"""Addresses that no measure may reach, gathered from everywhere: mandates, gateway file, this machine.

Owns the union. Of 127.0.0.0/8 only 127.0.0.1 counts as ours (and ::1): the rest are clients like any other. What the
machine says of itself (own addresses, gateways, resolvers) is read as far as it can be; the rest is left out.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from scrubber.config.gateway import Gateway
from scrubber.config.listener import UNIX_PEER
from scrubber.config.network import Network, network
from scrubber.errors import ValueRefused
from scrubber.mandate.schema import Mandate
from scrubber.mandate.slots import pools_of

LOOPBACK = ("127.0.0.1/32", "::1/128")


def never_block(gateway: Gateway, mandates: Sequence[Mandate], machine: Iterable[str]) -> tuple[str, ...]:
    """Canonical prefixes, each once: the mandates' lists united, trusted proxies, PROXY peers, origins, listeners and
    `machine`. `gateway`: names of origins resolved; one that has no address cannot be reached anyway.
    """
    found: list[str] = list(LOOPBACK)
    for mandate in mandates:
        found += mandate.never_block
    for listener in gateway.listeners:
        found += listener.trusted_proxies
        found += listener.proxy_protocol
        found += [UNIX_PEER] if listener.address.family == "unix" else _ours([listener.address.address])
    for area in gateway.areas:
        members = [o.address for _, origins, _ in pools_of(area) for o in origins]
        found += [str(network(address.address)) for address in members if address.family not in ("unix", "name")]
    found += _ours(machine)
    return tuple(dict.fromkeys(found))


def networks(prefixes: Iterable[str]) -> list[Network]:
    """The networks of canonical texts."""
    return [network(p) for p in prefixes]


def touching(never: Iterable[Network], wanted: Network) -> Network | None:
    """A never-block network that shares an address with `wanted`, if any."""
    return next((n for n in never if n.version == wanted.version and n.overlaps(wanted)), None)


def machine_addresses(root: Path = Path("/")) -> tuple[str, ...]:
    """This machine's own addresses, its gateways and its resolvers, as far as /proc and /etc tell."""
    found = _local_v4(root) | _local_v6(root) | _gateways_v4(root) | _gateways_v6(root) | _resolvers(root)
    return tuple(sorted(found))


def _ours(addresses: Iterable[str]) -> list[str]:
    """Prefixes of those that stand for one host of ours: no wildcard, no loopback (LOOPBACK has ours), no multicast."""
    kept: list[str] = []
    for text in addresses:
        try:
            net = network(text)
        except ValueRefused:
            continue
        address = net.network_address
        if not (address.is_unspecified or address.is_loopback or address.is_multicast):
            kept.append(str(net))
    return kept


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _local_v4(root: Path) -> set[str]:
    """/proc/net/fib_trie: an address line, then "/32 host LOCAL"."""
    found: set[str] = set()
    address = ""
    for line in _lines(root / "proc/net/fib_trie"):
        leaf = re.match(r"\s*\|--\s+(\S+)", line)
        if leaf:
            address = leaf[1]
        elif "/32 host LOCAL" in line and address:
            found.add(address)
    return found


def _local_v6(root: Path) -> set[str]:
    """/proc/net/if_inet6: 32 hexadecimal digits first."""
    rows = (line.split() for line in _lines(root / "proc/net/if_inet6"))
    return {str(ipaddress.IPv6Address(int(row[0], 16))) for row in rows if row and re.fullmatch("[0-9a-f]{32}", row[0])}


def _gateways_v4(root: Path) -> set[str]:
    """/proc/net/route: the third column is the gateway, in the machine's byte order."""
    rows = (line.split() for line in _lines(root / "proc/net/route")[1:])
    words = {row[2] for row in rows if len(row) > 2 and re.fullmatch("[0-9A-F]{8}", row[2])}
    return {str(ipaddress.IPv4Address(struct.pack("=I", int(word, 16)))) for word in words}


def _gateways_v6(root: Path) -> set[str]:
    """/proc/net/ipv6_route: the fifth column is the next hop."""
    rows = (line.split() for line in _lines(root / "proc/net/ipv6_route"))
    words = {row[4] for row in rows if len(row) > 4 and re.fullmatch("[0-9a-f]{32}", row[4])}
    return {str(ipaddress.IPv6Address(int(word, 16))) for word in words}


def _resolvers(root: Path) -> set[str]:
    """nameserver lines of /etc/resolv.conf, zone ids dropped."""
    rows = (line.split() for line in _lines(root / "etc/resolv.conf"))
    return {row[1].partition("%")[0] for row in rows if len(row) > 1 and row[0] == "nameserver"}

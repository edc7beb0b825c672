"""What an attack of this scenario may be: from which sources, to which door, for how long.

Owns the addresses of both ends (RFC 2544's, for benchmarks). Invariants: sources and target are literal addresses of
198.18.0.0/15, and few; an attack ends by itself, after so many seconds or attempts; it starts in a network namespace
that the attacker has made itself and that leads nowhere but to the other end of one veth pair.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from pyroute2 import IPRoute

from bench.load.guard import LoadRefused

BENCHMARKS = ipaddress.IPv4Network("198.18.0.0/15")
GATE, ATTACKER, ENDS_PLEN = "198.18.0.1", "198.18.0.2", 30
SOURCES = "198.18.64.0/22"
PORT = 8080

SOURCES_MAX = 1024
SECONDS_CEILING = 10.0
ATTEMPTS_CEILING = 50_000_000  # frames or connections a run


@dataclass(frozen=True, slots=True)
class Attack:
    """`sources`: a prefix, each of its addresses a source."""

    sources: str
    target: str = GATE
    port: int = PORT

    def __post_init__(self) -> None:
        hint = f"an attack stays within {BENCHMARKS}, from {SOURCES_MAX:,} sources at most"
        try:
            sources, target = ipaddress.IPv4Network(self.sources), ipaddress.IPv4Address(self.target)
        except ValueError as error:
            raise LoadRefused(str(error), hint) from None
        if not sources.subnet_of(BENCHMARKS) or sources.num_addresses > SOURCES_MAX:
            raise LoadRefused(f"sources {sources} are out of bounds", hint)
        if target not in BENCHMARKS or target in sources:
            raise LoadRefused(f"target {target} is out of bounds", hint)
        if not 0 < self.port < 65536:
            raise LoadRefused(f"port {self.port} is not a TCP port", "1 to 65535")

    def addresses(self) -> list[str]:
        return [str(address) for address in ipaddress.IPv4Network(self.sources)]


def demand_short(seconds: float) -> None:
    if not 0 < seconds <= SECONDS_CEILING:
        raise LoadRefused(f"{seconds} seconds are out of bounds", f"up to {SECONDS_CEILING:g}")


def demand_closed_network(device: str) -> None:
    """This thread's network has a loopback and one end of a veth pair, that device, and nothing else."""
    with IPRoute() as network:
        links = network.get_links()
    kinds = {link.get("ifname"): link.get(("linkinfo", "kind")) for link in links if link.get("ifname") != "lo"}
    if kinds != {device: "veth"}:
        raise LoadRefused(f"this network has {kinds or 'no way out'}", f"an attack wants {device} alone, a veth end")

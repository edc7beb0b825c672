"""FlowSpec rules: which packets, and what the provider's routers do with them (RFC 8955; for IPv6 RFC 8956).

Owns their form, its bounds, and their text for ExaBGP's API; nothing here reads such text. Invariants: a `Flow` that
exists is sound; two that match the same packets are the same bytes on the wire, for ranges are in order and apart; its
text is one line of letters, digits and a few signs, whatever its fields were made from.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Literal, NoReturn

import msgspec

from scrubber.enforce.net import Net, is_v4, plen, sound
from scrubber.errors import ValueRefused

Range = tuple[int, int]  # first and last, both included
Action = Literal["discard"] | int  # else what may pass, in bytes a second
Family = Literal["ipv4", "ipv6"]

# All components at their longest stay below 240 bytes, so that the NLRI's length is one byte (RFC 8955, 4.1): some
# speakers get two wrong.
RANGES_MAX = 8
RATE_BYTES_PER_S_MAX = 10**12  # ExaBGP takes no more
FLOWS_MAX = 64


class Flow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is left open matches every packet; the components that are there all have to match (RFC 8955, 4.2)."""

    destination: Net
    until_ns: int  # CLOCK_MONOTONIC
    action: Action = "discard"
    source: Net | None = None
    protocols: tuple[int, ...] = ()  # of IPv6: the upper layer's (RFC 8956, 3.3)
    source_ports: tuple[Range, ...] = ()
    destination_ports: tuple[Range, ...] = ()
    packet_lengths: tuple[Range, ...] = ()  # of the whole IP packet (RFC 8955, 4.2.2.10)

    def __post_init__(self) -> None:
        """msgspec calls it for what it decodes, too."""
        if not sound(self.destination) or (self.source is not None and not sound(self.source)):
            _refuse("its source or destination is not a network", "5 or 17 bytes, the last one the prefix length")
        if self.source is not None and is_v4(self.source) != is_v4(self.destination):
            _refuse("its source and destination are of two families", "both IPv4 or both IPv6")
        if self.action != "discard" and not (_whole(self.action) and 1 <= self.action <= RATE_BYTES_PER_S_MAX):
            _refuse(f"the action {self.action!r} is none", f'"discard", or 1 to {RATE_BYTES_PER_S_MAX} bytes a second')
        _ranges("protocols", [(one, one) for one in self.protocols], 255)
        _ranges("source ports", self.source_ports, 65535)
        _ranges("destination ports", self.destination_ports, 65535)
        _ranges("packet lengths", self.packet_lengths, 65535)

    @property
    def family(self) -> Family:
        return "ipv4" if is_v4(self.destination) else "ipv6"

    @property
    def match(self) -> str:
        """The packets meant, as ExaBGP writes them. It names the rule: BGP knows one action for each (RFC 8955, 4)."""
        words = ["destination", _prefix(self.destination)]
        if self.source is not None:
            words += ["source", _prefix(self.source)]
        protocol = "protocol" if is_v4(self.destination) else "next-header"
        words += _numbers(protocol, [(one, one) for one in self.protocols])
        words += _numbers("source-port", self.source_ports)
        words += _numbers("destination-port", self.destination_ports)
        words += _numbers("packet-length", self.packet_lengths)
        return " ".join(words)


def announcement(flow: Flow) -> str:
    """The command that announces it. Dropping is a rate of nothing (RFC 8955, 7.1)."""
    return f"announce flow route {flow.match} rate-limit {0 if flow.action == 'discard' else flow.action}"


def withdrawal(match: str) -> str:
    """The command that takes back what `match` names."""
    return f"withdraw flow route {match}"


def _prefix(net: Net) -> str:
    """Always with its length: a host's is not left out."""
    return f"{socket.inet_ntop(socket.AF_INET if is_v4(net) else socket.AF_INET6, net[:-1])}/{plen(net)}"


def _numbers(name: str, ranges: Iterable[Range]) -> list[str]:
    texts = [f"={first}" if first == last else f">={first}&<={last}" for first, last in ranges]
    return [name, "[", *texts, "]"] if texts else []


def _ranges(name: str, ranges: Iterable[Range], largest: int) -> None:
    """Each within bounds, behind the one before it."""
    found = list(ranges)
    if len(found) > RANGES_MAX:
        _refuse(f"it has {len(found)} {name}", f"at most {RANGES_MAX}")
    before = -1
    for first, last in found:
        if not (_whole(first) and _whole(last) and before < first <= last <= largest):
            _refuse(
                f"its {name} are not in order within 0 to {largest}: {first!r} to {last!r}", "ranges from low to high"
            )
        before = last


def _whole(value: object) -> bool:
    """Python's bool is an int, and would be text of its own."""
    return type(value) is int


def _refuse(what: str, expected: str) -> NoReturn:
    raise ValueRefused(f"not a FlowSpec rule: {what}", expected=expected)

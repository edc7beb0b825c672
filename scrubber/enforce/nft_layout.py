"""Our nftables table as text: which sets it has, and the rules that look them up.

Owns names and the layout's version. A set holds the networks of one family and one prefix length that one door is shut
to, each as its first address: rules mask the source and look it up. Sets by prefix length, and not one of intervals:
networks within one another stand beside each other, what was put is what is listed, and a change costs the same
however many there are (an interval set of 20,000: 193 ms). A length once used keeps its set.

Packets: base chain → (address and port of a door) → that door's chain → one lookup a prefix length in use → drop. All
else is accepted by this chain, so goes on through everybody else's. A fragment behind the first has no TCP header and
passes; without its first it comes to nothing. At ingress the kernel has taken off one VLAN tag; a frame that bears two
passes there.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from scrubber.enforce.backend import DOORS_MAX, TABLE, Door, Settings
from scrubber.enforce.net import V4_BYTES, V4_HOST_PLEN, V6_HOST_PLEN, Net
from scrubber.errors import ValueRefused

VERSION = 1
_TAG = "scrubber layout "
# Room above what Settings allow, for what is over but not swept out yet (the kernel does that once a second).
_SLACK = 1024


class Slot(NamedTuple):
    """One set."""

    family: int
    plen: int
    door: int

    @property
    def name(self) -> str:
        return f"v{self.family}_{self.plen}_door{self.door}"

    @property
    def width(self) -> int:
        return 4 if self.family == 4 else 16

    @property
    def of_hosts(self) -> bool:
        return self.plen == (V4_HOST_PLEN if self.family == 4 else V6_HOST_PLEN)


class Put(NamedTuple):
    """An element that is to be, until then."""

    slot: Slot
    net: Net
    until_ns: int


class Cut(NamedTuple):
    """An element that is no longer to be."""

    slot: Slot
    net: Net


def slot_of(net: Net, door: int) -> Slot:
    return _slot(len(net), net[-1], door)


@cache
def _slot(length: int, plen: int, door: int) -> Slot:
    return Slot(4 if length == V4_BYTES else 6, plen, door)


def slot_named(name: str) -> Slot | None:
    """None: no set of ours is called so."""
    family, _, rest = name.partition("_")
    plen, _, door = rest.partition("_door")
    if not (family in ("v4", "v6") and plen.isdecimal() and door.isdecimal()):
        return None
    slot = Slot(int(family[1]), int(plen), int(door))
    return slot if slot.name == name and slot.door < DOORS_MAX and slot.plen <= 8 * slot.width else None


def family_of(settings: Settings) -> str:
    return "netdev" if settings.interfaces else "inet"


def tag_of(settings: Settings) -> str:
    """The comment of a table of ours. A set keeps the size that it was made with: sizes are part of it."""
    return f"{_TAG}{VERSION} hosts {settings.hosts_max} prefixes {settings.prefixes_max}"


def is_ours(comment: str) -> bool:
    return comment.startswith(_TAG)


def same_layout(comment: str) -> bool:
    """Whether this version of us can read its sets."""
    return comment.startswith(f"{_TAG}{VERSION} ")


def table_text(settings: Settings, doors: Sequence[Door] | None, slots: Iterable[Slot]) -> str:
    """Makes the table what it shall be, whatever it was, in one transaction; elements stay. Without a word about doors
    its rules stay, too."""
    if doors is not None and len(doors) > DOORS_MAX:
        raise ValueRefused(f"{len(doors)} doors", expected=f"at most {DOORS_MAX}")
    place = f"{family_of(settings)} {TABLE}"
    ordered = sorted(slots, key=lambda slot: (slot.door, slot.family, not slot.of_hosts, -slot.plen))
    lines = [f'add table {place} {{ comment "{tag_of(settings)}";}}']
    for slot in ordered:
        most = (settings.hosts_max if slot.of_hosts else settings.prefixes_max) + _SLACK
        kind = "ipv4_addr" if slot.family == 4 else "ipv6_addr"
        lines.append(f"add set {place} {slot.name} {{ type {kind}; flags timeout; size {most}; counter;}}")
    if doors is None:
        return "\n".join(lines)
    chains = sorted({(slot.door, slot.family) for slot in ordered if slot.door < len(doors)})
    for door, family in chains:
        lines += [f"add chain {place} door{door}_v{family}", f"flush chain {place} door{door}_v{family}"]
    lines += [
        f"add rule {place} door{slot.door}_v{slot.family} {_source(slot)} @{slot.name} drop"
        for slot in ordered
        if slot.door < len(doors)
    ]
    return "\n".join([*lines, *_entry(settings, doors, place, set(chains))])


def _entry(settings: Settings, doors: Sequence[Door], place: str, chains: set[tuple[int, int]]) -> list[str]:
    """The base chain, made anew: its devices may be others now."""
    if settings.interfaces:
        hook = f"ingress devices = {{ {', '.join(settings.interfaces)} }} priority -500"
    else:
        hook = "prerouting priority raw"
    chain = f"add chain {place} entry {{ type filter hook {hook}; policy accept;}}"
    lines = [chain, f"delete chain {place} entry", chain]
    for family, word, protocol in ((4, "ip", "ip"), (6, "ip6", "ip6")):
        own: dict[str, str] = {}
        anywhere: dict[str, str] = {}
        for number, door in enumerate(doors):
            for kind, address, port in door.addresses:
                if kind != family or (number, family) not in chains:
                    continue
                key = f"{_address(address)} . {port}" if address else str(port)
                (own if address else anywhere).setdefault(key, f"goto door{number}_v{family}")
        # As listening sockets go: one on this very address takes the connection before one on every address.
        for keys, match in ((own, f"{word} daddr . tcp dport"), (anywhere, f"meta protocol {protocol} tcp dport")):
            if keys:
                verdicts = ", ".join(f"{key} : {verdict}" for key, verdict in keys.items())
                lines.append(f"add rule {place} entry {match} vmap {{ {verdicts} }}")
    return lines


def _source(slot: Slot) -> str:
    """What is looked up: the source, its bits behind the prefix taken away."""
    if slot.family == 4:
        mask = ipaddress.IPv4Network((0, slot.plen)).netmask
        return "ip saddr" if slot.plen == 32 else f"ip saddr & {mask}"
    mask6 = ipaddress.IPv6Network((0, slot.plen)).netmask
    return "ip6 saddr" if slot.plen == 128 else f"ip6 saddr & {mask6}"


def put_text(place: str, puts: Sequence[Put], now_ns: int) -> str:
    return "\n".join(
        f"add element {place} {slot.name} {{"
        + ",".join(f"{_address(net[:-1])} timeout {_left(end - now_ns)}" for _, net, end in group)
        + "}"
        for slot, group in groupby(puts, key=itemgetter(0))
    )


def _left(ns: int) -> str:
    """The kernel takes a time of 0 for none: what is over by now gets the shortest. libnftables reads 8 digits."""
    days, ms = divmod(max(ns // 1_000_000, 1), 86_400_000)
    return f"{days}d{ms}ms" if days else f"{ms}ms"


def renew_text(place: str, puts: Sequence[Put], now_ns: int) -> str:
    """Of elements that are there, for kernels that let those keep their time: out and in, in one transaction."""
    return f"{cut_text(place, [Cut(put.slot, put.net) for put in puts])}\n{put_text(place, puts, now_ns)}"


def cut_text(place: str, cuts: Sequence[Cut]) -> str:
    return "\n".join(
        f"delete element {place} {slot.name} {{" + ",".join(_address(net[:-1]) for _, net in group) + "}"
        for slot, group in groupby(cuts, key=itemgetter(0))
    )


def _address(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)

"""The safety envelope: the last check before any act on kernel or BGP, whatever the caller says.

Owns what may never be done. Pure: no I/O, the time comes in. Invariants: what `Floor` forbids no `Terms` allow, and
before there are Terms nothing is allowed; every refusal has its reason; only a refusal of "" counts towards the rate.

An announced 0.0.0.0/0 and a /128 that somebody forgot have taken networks down: form comes before all else.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from typing import Literal

import msgspec

from scrubber.enforce.backend import DOORS_MAX, Drop
from scrubber.enforce.flow import Flow
from scrubber.enforce.net import V4_BYTES, V6_BYTES, V6_HOST_PLEN, Net, is_host, is_v4, net_of, net_text, plen, sound
from scrubber.errors import ValueRefused
from scrubber.units import NS_PER_S, format_duration

Kind = Literal["victim", "source"]
MINUTE_NS = 60 * NS_PER_S
SOURCE_PLEN_MIN = {4: 24, 6: 48}  # nothing wider is dropped upstream by its source: it is what is routed anywhere


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the mandates of now allow. As it stands: nothing."""

    never: tuple[Net, ...] = ()
    own: tuple[Net, ...] = ()  # of `never`, what nobody named: this machine's addresses, which may be given up
    v4_widest: int = 32  # shortest prefix length of a source
    v6_widest: int = 64
    victim_v4_widest: int = 32
    victim_v6_widest: int = 128
    ttl_ns_max: int = 0
    hosts_max: int = 0
    prefixes_max: int = 0
    announcements_max: int = 0
    announcements_per_min: int = 0
    flows_max: int = 0


class Floor(Terms, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was fixed when the enforcer started: Terms cannot go below it."""

    protects: tuple[Net, ...] = ()  # of ours: victims lie in them, sources never


# Bounds of each number: a prefix length of 0 is everybody, and a client is never narrower than its host.
_BOUNDS = {"v4_widest": (1, 32), "v6_widest": (1, 64), "victim_v4_widest": (1, 32), "victim_v6_widest": (1, 128)}
_WIDEST = tuple(_BOUNDS)
_CAPS = ("ttl_ns_max", "hosts_max", "prefixes_max", "announcements_max", "announcements_per_min", "flows_max")

# Of 127.0.0.0/8 only 127.0.0.1 is ours; the rest are clients as others are, but not beyond this machine.
_NOBODY = [
    ("0.0.0.0/8", "unspecified"),
    ("127.0.0.1", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::ffff:0:0/96", "IPv4 written as IPv6"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
]


class Spans:
    """A set of addresses: ranges in order and apart, so that one search answers, whichever of two overlaps is wider."""

    def __init__(self, nets: Iterable[Net]) -> None:
        self._ranges: dict[int, tuple[list[int], list[int]]] = {V4_BYTES: ([], []), V6_BYTES: ([], [])}
        for net in sorted(nets):
            first, last = _ends(net)
            firsts, lasts = self._ranges[len(net)]
            if lasts and first <= lasts[-1] + 1:
                lasts[-1] = max(lasts[-1], last)
            else:
                firsts.append(first)
                lasts.append(last)

    def touches(self, net: Net) -> bool:
        """Whether an address of `net` is among them."""
        first, last = _ends(net)
        firsts, lasts = self._ranges[len(net)]
        at = bisect_right(firsts, last) - 1
        return at >= 0 and lasts[at] >= first

    def holds(self, net: Net) -> bool:
        """Whether all addresses of `net` are."""
        first, last = _ends(net)
        firsts, lasts = self._ranges[len(net)]
        at = bisect_right(firsts, first) - 1
        return at >= 0 and lasts[at] >= last

    def lost_with(self, net: Net) -> bool:
        """Whether none of them, of its family, lies outside `net`."""
        first, last = _ends(net)
        firsts, lasts = self._ranges[len(net)]
        return bool(firsts) and first <= firsts[0] and lasts[-1] <= last


def _ends(net: Net) -> tuple[int, int]:
    first = int.from_bytes(net[:-1], "big")
    return first, first | ((1 << (8 * (len(net) - 1) - net[-1])) - 1)


class Envelope:
    """Asked before each act; withdrawing needs no leave."""

    def __init__(self, floor: Floor) -> None:
        _check(floor)
        self._floor = floor
        self._protects = Spans(floor.protects)
        self._nobody = [(net_of(text), name) for text, name in _NOBODY]
        self._nobodies = Spans(net for net, _ in self._nobody)
        self._loopback = Spans([net_of("127.0.0.0/8")])
        self._announced: deque[int] = deque()  # when, the last minute's
        self.use(Terms())

    def use(self, terms: Terms) -> None:
        """The mandates are others now. ValueRefused, and the old ones hold, where these are unsound."""
        _check(terms)
        never = Spans((*self._floor.never, *terms.never))
        named = [set(each.never).difference(each.own) for each in (self._floor, terms)]
        tightest = {name: max(getattr(self._floor, name), getattr(terms, name)) for name in _WIDEST}
        tightest |= {name: min(getattr(self._floor, name), getattr(terms, name)) for name in _CAPS}
        self._never, self._never_victims = never, Spans(set().union(*named))
        self.terms = msgspec.convert(tightest, Terms)  # in force; the never-block lists are in `_never`

    def refuse_drop(self, net: Net, drop: Drop, now_ns: int, in_force: int) -> str:
        """Why these packets may not be dropped here; "": they may. `in_force`: other drops of its kind (hosts, or
        prefixes) that there are."""
        refused = self._form(net) or self._source(net, local=True) or self._time(drop.until_ns, now_ns)
        if refused:
            return refused
        if not 0 < drop.doors < 1 << DOORS_MAX:
            return f"{drop.doors:#x} names no doors"
        most = self.terms.hosts_max if is_host(net) else self.terms.prefixes_max
        return "" if in_force < most else f"full: {in_force} of {most} in force"

    def refuse_announcement(
        self, net: Net, kind: Kind, until_ns: int, now_ns: int, in_force: int, *, again: bool = False
    ) -> str:
        """Why this blackhole may not be announced; "": it may, and is counted. `in_force`: others announced; `again`:
        this one is, and no other word goes to the routers."""
        refused = self._form(net) or self._time(until_ns, now_ns)
        refused = refused or (self._victim(net) if kind == "victim" else self._routed(net))
        return refused or self._counted(in_force, self.terms.announcements_max, now_ns, again=again)

    def refuse_flow(self, flow: Flow, now_ns: int, in_force: int, *, again: bool = False) -> str:
        """Why this rule may not be announced; "": it may, and is counted. `in_force`, `again`: as of blackholes. It is
        aimed at its source where it has one, at its destination where it has none."""
        refused = self._form(flow.destination) or self._time(flow.until_ns, now_ns)
        if refused:
            return refused
        if flow.source is None:
            refused = self._victim(flow.destination)
        elif not self._protects.holds(flow.destination):
            refused = f"{net_text(flow.destination)} is not ours to protect"
        else:
            refused = self._form(flow.source) or self._source(flow.source, local=False, finer=True)
        return refused or self._counted(in_force, self.terms.flows_max, now_ns, again=again)

    def _form(self, net: Net) -> str:
        """What no network of any kind may be."""
        if not sound(net):
            return (
                f"{net.hex() or 'nothing'} is not a network: no mask, bits set behind it, or of no length that there is"
            )
        if plen(net) == 0:
            return f"{net_text(net)} is everybody"
        if self._nobodies.touches(net):
            name = next(name for other, name in self._nobody if Spans([other]).touches(net))
            return f"{net_text(net)} has {name} addresses"
        return ""

    def _aimed(self, net: Net, never: Spans) -> str:
        return f"{net_text(net)} is never blocked, or has addresses that are" if never.touches(net) else ""

    def _source(self, net: Net, *, local: bool, finer: bool = False) -> str:
        """What may not be shut out."""
        widest = self.terms.v4_widest if is_v4(net) else self.terms.v6_widest
        if plen(net) < widest:
            return f"{net_text(net)} is wider than /{widest}"
        if not finer and not is_v4(net) and plen(net) > V6_HOST_PLEN:
            return f"{net_text(net)} is narrower than /{V6_HOST_PLEN}: an IPv6 client is its /{V6_HOST_PLEN}"
        if self._protects.touches(net):
            return f"{net_text(net)} is ours, or has addresses of ours"
        if not local and self._loopback.touches(net):
            return f"{net_text(net)} has loopback addresses, which no router meets"
        return self._aimed(net, self._never)

    def _routed(self, net: Net) -> str:
        """What may not be shut out by a route."""
        widest = SOURCE_PLEN_MIN[4 if is_v4(net) else 6]
        refused = self._source(net, local=False)
        return refused or (f"{net_text(net)} is wider than /{widest}" if plen(net) < widest else "")

    def _victim(self, net: Net) -> str:
        """What of ours may not be given up."""
        if not self._protects.holds(net):
            return f"{net_text(net)} is not ours to protect"
        if self._protects.lost_with(net):
            return f"{net_text(net)} is all that we protect"
        widest = self.terms.victim_v4_widest if is_v4(net) else self.terms.victim_v6_widest
        if plen(net) < widest:
            return f"{net_text(net)} is wider than /{widest}, for a victim"
        return self._aimed(net, self._never_victims)

    def _time(self, until_ns: int, now_ns: int) -> str:
        left_ns, most_ns = until_ns - now_ns, self.terms.ttl_ns_max
        if left_ns <= 0:
            return "its time is over"
        return (
            ""
            if left_ns <= most_ns
            else f"it would last {left_ns / NS_PER_S:.0f}s: longer than {format_duration(most_ns)}"
        )

    def _counted(self, in_force: int, most: int, now_ns: int, *, again: bool) -> str:
        if in_force >= most:
            return f"full: {in_force} of {most} announced"
        if again:
            return ""
        while self._announced and self._announced[0] <= now_ns - MINUTE_NS:
            self._announced.popleft()
        if len(self._announced) >= self.terms.announcements_per_min:
            return f"too fast: {len(self._announced)} announcements within a minute"
        self._announced.append(now_ns)
        return ""


def _check(terms: Terms) -> None:
    """A list that cannot be read protects nobody: it is refused as a whole."""
    protects = terms.protects if isinstance(terms, Floor) else ()
    for name, nets in (("never", terms.never), ("own", terms.own), ("protects", protects)):
        for net in nets:
            if not sound(net):
                raise ValueRefused(f"{net.hex()} in {name} is not a network", expected="prefixes without host bits")
    for name in (*_WIDEST, *_CAPS):
        least, most = _BOUNDS.get(name, (0, 1 << 62))
        if not least <= getattr(terms, name) <= most:
            raise ValueRefused(f"{name} is {getattr(terms, name)}", expected=f"{least} to {most}")

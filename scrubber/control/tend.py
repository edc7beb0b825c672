"""Blocks that the kernel keeps, looked after: who still sends stays out for longer, who is silent is let back in early.

Owns when either is due. Pure: counts and times are passed in. Invariants: nobody is let back in without a probe, in
which the kernel lets its packets through and the gateway, where the block still stands, says whether any came; what is
extended was still sending a moment ago. How long it may last is the mandate's to say, and asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from scrubber.enforce.net import Net
from scrubber.units import NS_PER_S

ACTIVE_NS = 5 * NS_PER_S  # who sent so short a time ago still sends
BEFORE_SHARE = 10  # it is extended in the last tenth of its time,
BEFORE_NS_MIN = 5 * NS_PER_S // 2  # or so shortly before its end: counts come once a second
PROBES_MAX = 1000  # at once: should all of them begin again together, the gateway bears it


@dataclass
class _Kept:
    """A source that the kernel drops."""

    since_ns: int
    until_ns: int
    ttl_ns: int
    packets: int = 0
    moved_ns: int = 0  # when more of its packets came; 0: none yet
    probe_ns: int = 0  # since when it is let through to the gateway; 0: it is not
    probe_hits: int = 0
    asked_ns: int = 0  # for which end it was extended last


@dataclass
class Due:
    """What is to be done. `extend`: for how long again."""

    extend: dict[Net, int] = field(default_factory=dict)
    probe: list[Net] = field(default_factory=list)
    resume: list[Net] = field(default_factory=list)
    lift: list[Net] = field(default_factory=list)


class Tender:
    """`quiet_ns`: so long without a packet is silence; 0: nobody is let back in early."""

    def __init__(self, quiet_ns: int) -> None:
        self.quiet_ns = quiet_ns
        self._kept: dict[Net, _Kept] = {}
        self._probing: set[Net] = set()

    def dropped(self, net: Net, until_ns: int, now_ns: int) -> None:
        """The kernel is told to drop it until then."""
        kept = self._kept.get(net)
        if kept is None:
            self._kept[net] = _Kept(now_ns, until_ns, until_ns - now_ns)
        else:
            kept.until_ns = until_ns

    def gone(self, nets: Iterable[Net]) -> None:
        """No more dropped, and not for a probe."""
        for net in nets:
            self._kept.pop(net, None)
            self._probing.discard(net)

    def counted(self, net: Net, packets: int, now_ns: int) -> None:
        """So many of its packets were dropped in all; fewer than before: its entry was made anew."""
        kept = self._kept.get(net)
        if kept is not None and packets != kept.packets:
            kept.packets, kept.moved_ns = packets, now_ns

    def probing(self, net: Net) -> bool:
        """Whether its packets are let through for the moment."""
        return net in self._probing

    def still_sending(self, now_ns: int) -> dict[Net, int]:
        """Whose time is nearly over, and how long it was: each once for one end."""
        found = {}
        for net, kept in self._kept.items():
            near = kept.until_ns - now_ns <= max(kept.ttl_ns // BEFORE_SHARE, BEFORE_NS_MIN)
            if near and kept.moved_ns and now_ns - kept.moved_ns <= ACTIVE_NS and kept.asked_ns != kept.until_ns:
                kept.asked_ns = kept.until_ns
                found[net] = kept.ttl_ns
        return found

    def look(self, hits: Mapping[Net, int], now_ns: int) -> Due:
        """Once in half of `quiet_ns`. `hits`: what the gateway refused of each that it knows."""
        due = Due()
        if not self.quiet_ns:
            return due
        for net, kept in self._kept.items():
            if net in self._probing:
                if now_ns - kept.probe_ns >= self.quiet_ns // 2:
                    (due.resume if hits.get(net, 0) != kept.probe_hits else due.lift).append(net)
            elif net in hits and len(self._probing) < PROBES_MAX and self._silent(kept, now_ns):
                kept.probe_ns, kept.probe_hits = now_ns, hits[net]
                self._probing.add(net)
                due.probe.append(net)
        for net in due.resume:
            self._probing.discard(net)
            self._kept[net].moved_ns = now_ns
        return due

    def _silent(self, kept: _Kept, now_ns: int) -> bool:
        return now_ns - max(kept.moved_ns, kept.since_ns) >= self.quiet_ns

"""Blocks that the kernel keeps, looked after: who still sends stays out for longer, who is silent is let back in early.

Owns when either is due. Pure: counts and times are passed in. Invariants: nobody is let back in without a probe, in
which the kernel lets its packets through and the gateway, where the block still stands, says whether any came; who is
extended has sent since its count before, and whoever sends is counted in time for it, however rarely counts come. How
long a block may last is the mandate's to say, and asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from scrubber.enforce.net import Net
from scrubber.units import NS_PER_S

BEFORE_SHARE = 10  # who still sends is extended in the last tenth of its time,
ROUNDS_MIN = 2.5  # or before so many counts more; and without a packet in as many nobody is silent
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
    """What is to be done."""

    probe: list[Net] = field(default_factory=list)
    resume: list[Net] = field(default_factory=list)
    lift: list[Net] = field(default_factory=list)


class Tender:
    """`quiet_ns`: so long without a packet is silence; 0: nobody is let back in early."""

    def __init__(self, quiet_ns: int) -> None:
        self.quiet_ns = quiet_ns
        self._rounds_ns = int(ROUNDS_MIN * NS_PER_S)
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

    def counts_come(self, every_ns: int) -> None:
        """Who goes on sending is counted again within so long."""
        self._rounds_ns = int(ROUNDS_MIN * max(every_ns, NS_PER_S))

    def counted(self, net: Net, packets: int, now_ns: int) -> int:
        """So many of its packets were dropped in all; fewer than before: its entry was made anew. For how long again it
        is to be dropped, once for one end; 0: nothing is to be done."""
        kept = self._kept.get(net)
        if kept is None or packets == kept.packets:
            return 0
        kept.packets, kept.moved_ns = packets, now_ns
        near = kept.until_ns - now_ns <= max(kept.ttl_ns // BEFORE_SHARE, self._rounds_ns)
        if not near or kept.asked_ns == kept.until_ns:
            return 0
        kept.asked_ns = kept.until_ns
        return kept.ttl_ns

    def probing(self, net: Net) -> bool:
        """Whether its packets are let through for the moment."""
        return net in self._probing

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
        return now_ns - max(kept.moved_ns, kept.since_ns) >= max(self.quiet_ns, self._rounds_ns)

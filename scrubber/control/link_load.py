"""The load of the line to the provider, and the sources that have to go for it to bear the rest.

Owns how load is reckoned and which sources answer it. Pure: what the kernel counted and times are passed in.
Invariants: no more sources are named than bring the load below what the rule says, the heaviest first; nothing is named
on figures that are older than what was done about the last ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from scrubber.enforce.net import Net
from scrubber.units import NS_PER_S, PPM

SETTLE_NS = 3 * NS_PER_S  # from an announcement until loads show it: counts come once a second
FRESH_NS = 3 * NS_PER_S  # a source that was not counted for so long sends nothing
_LINE = re.compile(r"^\s*(\S+):\s*(\d+)", re.MULTILINE)


def received_bytes(proc_net_dev: str, interfaces: Collection[str]) -> int:
    """Of /proc/net/dev (proc(5)): bytes that came in over these since they are there."""
    return sum(int(count) for name, count in _LINE.findall(proc_net_dev) if name in interfaces)


class LinkLoad:
    """Bytes a second against what the line carries."""

    def __init__(self, rate_bytes_per_s: int) -> None:
        self._rate = rate_bytes_per_s
        self._last: tuple[int, int] | None = None  # bytes, when
        self.bytes_per_s = 0.0

    @property
    def ppm(self) -> int:
        return round(self.bytes_per_s * PPM / self._rate) if self._rate else 0

    def count(self, received: int, now_ns: int) -> None:
        """What came in so far; fewer than before: an interface is gone or new."""
        if self._last is not None and received >= self._last[0] and now_ns > self._last[1]:
            self.bytes_per_s = (received - self._last[0]) * NS_PER_S / (now_ns - self._last[1])
        self._last = received, now_ns

    def excess_bytes_per_s(self, threshold_ppm: int) -> float:
        """By how much it is above that; 0 and less: it is not."""
        return self.bytes_per_s - self._rate * threshold_ppm / PPM


@dataclass
class _Source:
    bytes: int
    at_ns: int
    bytes_per_s: float = 0.0


class Heaviest:
    """What comes of each source that the kernel drops: it comes over the line all the same."""

    def __init__(self) -> None:
        self._sources: dict[Net, _Source] = {}

    def counted(self, net: Net, count: int, now_ns: int) -> None:
        """So many bytes of it were dropped in all; fewer than before: its entry was made anew."""
        source = self._sources.get(net)
        if source is None:
            self._sources[net] = _Source(count, now_ns)
        elif now_ns > source.at_ns:
            more = count - source.bytes if count >= source.bytes else count
            source.bytes_per_s = more * NS_PER_S / (now_ns - source.at_ns)
            source.bytes, source.at_ns = count, now_ns

    def forget(self, now_ns: int) -> None:
        """Those that were not counted of late."""
        self._sources = {net: source for net, source in self._sources.items() if now_ns - source.at_ns <= FRESH_NS}

    def enough(self, bytes_per_s: float, but: Collection[Net], now_ns: int) -> list[Net]:
        """The heaviest that together send so much, or all there are; without those in `but`."""
        sending = [
            (source.bytes_per_s, net)
            for net, source in self._sources.items()
            if source.bytes_per_s > 0 and now_ns - source.at_ns <= FRESH_NS and net not in but
        ]
        found: list[Net] = []
        for rate, net in sorted(sending, reverse=True):
            if bytes_per_s <= 0:
                break
            found.append(net)
            bytes_per_s -= rate
        return found


class Pressed:
    """How long the load has been where a rule wants it, by rule."""

    def __init__(self) -> None:
        self._since_ns: dict[str, int] = {}
        self._acted_ns = 0

    def due(self, clause: str, climb_ns: int, now_ns: int, *, above: bool) -> bool:
        """Whether it is time to act: above for `climb_ns`, and what was done last has shown."""
        if not above:
            self._since_ns.pop(clause, None)
            return False
        since_ns = self._since_ns.setdefault(clause, now_ns)
        return now_ns - since_ns >= climb_ns and now_ns - self._acted_ns >= SETTLE_NS

    def acted(self, now_ns: int) -> None:
        self._acted_ns = now_ns

    def keep(self, clauses: Iterable[str]) -> None:
        """Rules that there are."""
        wanted = set(clauses)
        self._since_ns = {clause: since for clause, since in self._since_ns.items() if clause in wanted}

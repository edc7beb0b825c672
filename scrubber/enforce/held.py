"""What a backend has put and not taken out, and whether one more fits.

Owns the count of hosts and prefixes of each family against their limits. What is over stays in memory, and counted,
until it is swept: at most SWEEP_NS longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from scrubber.enforce.backend import Drop, Settings
from scrubber.enforce.net import Net, is_host

SWEEP_NS = 500_000_000


class Held:
    def __init__(self, settings: Settings) -> None:
        self._most = {True: settings.hosts_max, False: settings.prefixes_max}
        self._drops: dict[Net, Drop] = {}
        self._count: dict[tuple[int, bool], int] = {}  # by length in bytes (so family), and whether a host
        self._swept_ns = 0

    def alive(self, net: Net, now_ns: int) -> Drop | None:
        """What holds of it still."""
        drop = self._drops.get(net)
        return drop if drop is not None and drop.until_ns > now_ns else None

    def all_alive(self, now_ns: int) -> Iterator[tuple[Net, Drop]]:
        return ((net, drop) for net, drop in self._drops.items() if drop.until_ns > now_ns)

    def fits(self, net: Net, now_ns: int) -> bool:
        """Whether there is room for it, or it has its place already."""
        if net in self._drops or self._has_room(net):
            return True
        if now_ns - self._swept_ns >= SWEEP_NS:
            self.replace(dict(self.all_alive(now_ns)))
            self._swept_ns = now_ns
        return self._has_room(net)

    def put(self, net: Net, drop: Drop) -> None:
        if net not in self._drops:
            sort = _sort(net)
            self._count[sort] = self._count.get(sort, 0) + 1
        self._drops[net] = drop

    def cut(self, net: Net) -> None:
        if self._drops.pop(net, None) is not None:
            self._count[_sort(net)] -= 1

    def replace(self, drops: Mapping[Net, Drop]) -> None:
        """This is all."""
        self._drops = dict(drops)
        self._count = {}
        for net in drops:
            sort = _sort(net)
            self._count[sort] = self._count.get(sort, 0) + 1

    def _has_room(self, net: Net) -> bool:
        return self._count.get(_sort(net), 0) < self._most[is_host(net)]


def _sort(net: Net) -> tuple[int, bool]:
    return len(net), is_host(net)

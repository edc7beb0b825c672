"""Hosts whose prefix is blocked: while its drop does for them what their own would, the kernel needs none of theirs.

Owns which host is covered by which prefix. Pure: drops and times are passed in. Invariants: a covered host is shut out
from every door that its own blocks shut, or nowhere (while its prefix is probed); it is looked at again before its
prefix ends, when its prefix is lifted or changed, and when the enforcer does not take the prefix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from scrubber.control.shut import Shut
from scrubber.enforce.backend import Drop
from scrubber.enforce.net import Net, is_host, supernet
from scrubber.units import NS_PER_S

PUT_BACK_NS = 2 * NS_PER_S  # so long before its prefix ends a host that is blocked for longer has its own drop again

NEVER_NS = 1 << 62


class Cover:
    """`change` with prefixes, then ask of each host."""

    def __init__(self) -> None:
        self._drops: dict[Net, Drop] = {}  # of prefixes
        self._lengths: Counter[tuple[int, int]] = Counter()  # of these, by family (bytes) and prefix length
        self._under: dict[Net, set[Net]] = {}
        self._over: dict[Net, Net] = {}
        self._refused: set[Net] = set()  # prefixes that are not in the kernel
        self._ends: dict[Net, int] = {}  # when a prefix and its hosts are to be looked at again
        self._next_ns = NEVER_NS  # no end is sooner
        self._again: set[Net] = set()
        self._hits: dict[Net, int] = {}  # of covered hosts, as last counted
        self._more: Counter[Net] = Counter()  # what they had since they are covered, by prefix

    def __len__(self) -> int:
        """How many hosts are covered."""
        return len(self._over)

    def nets(self) -> set[Net]:
        """Prefixes and covered hosts."""
        return {*self._drops, *self._over}

    def change(self, shut: Shut, nets: Iterable[Net], now_ns: int) -> set[Net]:
        """The prefixes among these are blocked as `shut` says, or no more. Hosts to be looked at again."""
        again: set[Net] = set()
        for net in nets:
            if is_host(net):
                continue
            drop = shut.drop(net, now_ns)
            if drop != self._drops.get(net):
                again.update(self._under.get(net, ()))
                self._set(net, drop)
                if drop is not None:
                    again.update(shut.hosts_within(net))
        return again

    def _set(self, prefix: Net, drop: Drop | None) -> None:
        kind = len(prefix), prefix[-1]
        if drop is not None:
            self._lengths[kind] += prefix not in self._drops
            self._drops[prefix] = drop
            self._ends[prefix] = drop.until_ns - PUT_BACK_NS
            self._next_ns = min(self._next_ns, self._ends[prefix])
            return
        del self._drops[prefix]
        self._lengths[kind] -= 1
        if not self._lengths[kind]:
            del self._lengths[kind]
        self._ends.pop(prefix, None)
        self._refused.discard(prefix)
        self._more.pop(prefix, None)

    def over(self, net: Net) -> Iterator[Net]:
        """Blocked prefixes that hold all of it, itself among them."""
        for size, length in self._lengths:
            if size == len(net) and length <= net[-1]:
                prefix = supernet(net, length)
                if prefix in self._drops:
                    yield prefix

    def covers(self, net: Net, drop: Drop | None, now_ns: int) -> bool:
        """Whether a prefix does for a host what its own drop would."""
        prefix = None
        if drop is not None and self._lengths and is_host(net):
            prefix = next((each for each in self.over(net) if self._does(each, drop, now_ns)), None)
        before = self._over.get(net)
        if before != prefix:
            if before is not None:
                self._leave(net, before)
            if prefix is not None:
                self._over[net] = prefix
                self._under.setdefault(prefix, set()).add(net)
        return prefix is not None

    def _does(self, prefix: Net, drop: Drop, now_ns: int) -> bool:
        its = self._drops[prefix]
        lasts = its.until_ns >= drop.until_ns or its.until_ns - now_ns > PUT_BACK_NS
        return lasts and its.doors & drop.doors == drop.doors and prefix not in self._refused

    def _leave(self, host: Net, prefix: Net) -> None:
        del self._over[host]
        self._hits.pop(host, None)
        self._under[prefix].discard(host)
        if not self._under[prefix]:
            del self._under[prefix]

    def refused(self, net: Net) -> None:
        """The kernel does not have it."""
        if net in self._drops:
            self._refused.add(net)
            self._again.update(self._under.get(net, ()))

    def due(self, now_ns: int) -> set[Net]:
        """Nets to be looked at again: hosts whose prefix ends soon, or is not in the kernel; all of it at its end."""
        if self._next_ns <= now_ns:
            for prefix in [prefix for prefix, end_ns in self._ends.items() if end_ns <= now_ns]:
                self._again.update(self._under.get(prefix, ()))
                if self._ends[prefix] < self._drops[prefix].until_ns:
                    self._ends[prefix] = self._drops[prefix].until_ns
                else:
                    del self._ends[prefix]
                    self._again.add(prefix)
            self._next_ns = min(self._ends.values(), default=NEVER_NS)
        again, self._again = self._again, set()
        return again

    def with_hosts(self, hits: Mapping[Net, int]) -> dict[Net, int]:
        """What the gateway refused of each: of a prefix also what it refused of the hosts that it covers. They may have
        gone meanwhile: what they had stays with it."""
        for host, prefix in self._over.items():
            count = hits.get(host, 0)
            self._more[prefix] += max(count - self._hits.get(host, 0), 0)
            self._hits[host] = count
        return {net: count + self._more[net] for net, count in hits.items()}

"""Many blocked hosts of one prefix: when they are enough to block the prefix in their stead, which, and how long.

Owns that question. Pure: blocks and times are passed in; whether the mandate and the people in the prefix allow it is
asked elsewhere. Invariants: no prefix is wider than a range of 256 clients, as the core looks no further for people who
would be blocked with it; none outlasts its evidence; one that was blocked is not named again before that evidence is
gone, whoever lifted it meanwhile, and one that was refused not within ASK_AGAIN_NS.

Counting costs nothing: `Shut` knows of each range which of its clients are blocked. Only where these are many does
anybody look at their blocks: once in LOOK_AGAIN_NS, and at a few ranges at a time.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from scrubber.control.shut import Bound, Shut
from scrubber.enforce.net import (
    RANGE_BITS,
    V4_HOST_PLEN,
    V6_HOST_PLEN,
    Net,
    is_host,
    is_v4_range,
    prefix_in_range,
    range_of,
)
from scrubber.units import NS_PER_S

CLIENTS_A_HOST = 4  # one in so many of the prefix' clients has to be blocked
WORTH_NS = 5 * NS_PER_S  # for less time nobody else is shut out
LOOK_AGAIN_NS = 5 * NS_PER_S
RANGES_A_LOOK = 4  # each costs up to a millisecond, in which nobody else has a turn
ASK_AGAIN_NS = 60 * NS_PER_S

Areas = tuple[int, ...]
Key = TypeVar("Key")


class Crowd(NamedTuple):
    """A prefix of which so many hosts are blocked for these areas, and until when these are enough."""

    prefix: Net
    areas: Areas
    rule_id: int  # of most of their blocks
    hosts: int
    clients: int  # that the prefix holds
    until_ns: int


class Aggregate:
    """`touched` with what has changed, `found` as often as one likes; `made` or `refused` with each that was found."""

    def __init__(self) -> None:
        self._least = 0
        self._bits = (0, 0)  # of IPv4, IPv6: clients of the widest prefix are 2 to this power
        self._rules: Collection[int] = ()
        self._due: set[bytes] = set()  # ranges
        self._looked: dict[bytes, int] = {}  # of these: not before
        self._made: dict[tuple[Net, Areas], int] = {}  # until then
        self._refused: dict[tuple[Net, Areas], int] = {}

    def use(self, least: int, v4_widest: int, v6_widest: int, rules: Collection[int]) -> None:
        """From now on: at least so many hosts (0: never), no wider prefixes, blocks by these rules alone."""
        self._least, self._rules = least, rules
        self._bits = (min(V4_HOST_PLEN - v4_widest, RANGE_BITS), min(V6_HOST_PLEN - v6_widest, RANGE_BITS))
        self._refused.clear()  # what was refused then may be allowed now

    def touched(self, nets: Iterable[Net]) -> None:
        """Their blocks are new, or have changed."""
        if self._least:
            self._due.update([range_of(net) for net in nets if is_host(net)])

    def all_touched(self, shut: Shut, now_ns: int) -> None:
        """Everything may have changed."""
        self._due = shut.crowded(self._least) if self._least else set()
        self._looked = _after(self._looked, now_ns)
        self._made = _after(self._made, now_ns)
        self._refused = _after(self._refused, now_ns)

    def found(self, shut: Shut, now_ns: int) -> list[Crowd]:
        """Prefixes to be blocked: of each range the widest that are crowded enough."""
        if not self._due:
            return []
        self._due = {common for common in self._due if shut.count(common) >= self._least}
        waited = (common for common in self._due if self._looked.get(common, 0) <= now_ns)
        ready = list(itertools.islice(waited, RANGES_A_LOOK))
        self._due.difference_update(ready)
        crowds: list[Crowd] = []
        for common in ready:
            self._looked[common] = now_ns + LOOK_AGAIN_NS
            for areas, alive in self._alive(shut, common, now_ns).items():
                crowds += self._among(common, areas, alive, RANGE_BITS, now_ns)
        return crowds

    def made(self, crowd: Crowd, until_ns: int) -> None:
        """It is blocked, until then at least."""
        self._made[crowd.prefix, crowd.areas] = until_ns

    def refused(self, crowd: Crowd, now_ns: int) -> None:
        """It may not be. Its halves are next."""
        self._refused[crowd.prefix, crowd.areas] = now_ns + ASK_AGAIN_NS
        self._looked.pop(range_of(crowd.prefix), None)
        self._due.add(range_of(crowd.prefix))

    def _alive(self, shut: Shut, common: bytes, now_ns: int) -> dict[Areas, list[tuple[int, Bound]]]:
        """Blocks that count, by what they bind, in the order of their hosts."""
        found: dict[Areas, list[tuple[int, Bound]]] = {}
        for index, host in shut.hosts_of(common):
            for areas, block in shut.blocks(host).items():
                if block.expires_ns > now_ns and block.rule_id in self._rules:
                    found.setdefault(areas, []).append((index, block))
        return found

    def _among(
        self, common: bytes, areas: Areas, alive: Sequence[tuple[int, Bound]], bits: int, now_ns: int
    ) -> Iterator[Crowd]:
        """The prefix of 2^`bits` clients that has all of these, else what is found in its halves."""
        if len(alive) < self._least:
            return
        if bits <= self._bits[not is_v4_range(common)]:
            crowd = self._crowd(common, areas, alive, bits)
            key = crowd.prefix, areas
            if self._made.get(key, 0) > now_ns:
                return
            if crowd.until_ns - now_ns >= WORTH_NS and self._refused.get(key, 0) <= now_ns:
                yield crowd
                return
        if bits == 0:
            return
        half = 1 << (bits - 1)
        for side in (0, half):
            yield from self._among(common, areas, [each for each in alive if each[0] & half == side], bits - 1, now_ns)

    def _crowd(self, common: bytes, areas: Areas, alive: Sequence[tuple[int, Bound]], bits: int) -> Crowd:
        """As if they were enough; it ends at 0 where they are not."""
        needed = max(self._least, -(-(1 << bits) // CLIENTS_A_HOST))
        ends = sorted((block.expires_ns for _, block in alive), reverse=True)
        rules = Counter(block.rule_id for _, block in alive)
        rule_id = min(rules, key=lambda rule: (-rules[rule], rule))
        prefix = prefix_in_range(common, alive[0][0], bits)
        until_ns = ends[needed - 1] if len(ends) >= needed else 0
        return Crowd(prefix, areas, rule_id, len(alive), 1 << bits, until_ns)


def _after(rests: dict[Key, int], now_ns: int) -> dict[Key, int]:
    return {key: until_ns for key, until_ns in rests.items() if until_ns > now_ns}

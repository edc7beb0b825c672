"""From blocks to what the enforcer is to drop: which doors are shut to whom, and until when.

Owns: the rule that a listening address may only be shut where every area that can be reached there allows it, and what
the mandates in force allow of prefixes, times and numbers. Pure: rows of the block table and times are passed in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from scrubber.config.listener import listener_keys
from scrubber.control.blackholes import own_addresses
from scrubber.control.policy import PolicyInForce
from scrubber.enforce.backend import DOORS_MAX, Door, Drop
from scrubber.enforce.envelope import Terms
from scrubber.enforce.net import RANGE_BITS, V4_BYTES, Net, host_in_range, is_host, net_of, range_of, spare_bits, within
from scrubber.mandate.bounds import area_bounds
from scrubber.mandate.never_block import machine_addresses, never_block

NUMBERS_MAX = 1 << 24  # hosts or prefixes, where no mandate says fewer

Row = tuple[Net, tuple[int, ...], int, int, int]  # network, areas, expires_ns, rule_id, hits


class Bound(NamedTuple):
    """One of a source's blocks."""

    expires_ns: int
    rule_id: int


def doors_of(
    policy: PolicyInForce, bound: Mapping[str, tuple[str, int]], before: Sequence[frozenset[int]] = ()
) -> tuple[list[Door], list[frozenset[int]]]:
    """Listening addresses by the areas that they lead to, and these areas' indexes. `bound`: host and port that a
    listener really has, by its key. `before`: what the doors led to until now: each keeps its index while it is there,
    as drops name doors by index. Beyond DOORS_MAX kinds the rest stays open: the gateway itself refuses there."""
    found: dict[frozenset[int], list[tuple[int, bytes, int]]] = {}
    for key, listener in zip(listener_keys(policy.gateway.listeners), policy.gateway.listeners, strict=True):
        if listener.address.family == "unix" or key not in bound:
            continue
        host, port = bound[key]
        address = ipaddress.ip_address(host)
        packed = b"" if address.is_unspecified else address.packed
        areas = frozenset(policy.area_ids[name] for name in listener.areas)
        found.setdefault(areas, []).append((address.version, packed, port))
    kept: list[frozenset[int]] = [areas if areas in found else frozenset() for areas in before]
    for areas in found:
        if areas not in kept:
            if frozenset() in kept:
                kept[kept.index(frozenset())] = areas
            elif len(kept) < DOORS_MAX:
                kept.append(areas)
    return [Door(tuple(found.get(areas, ()))) for areas in kept], kept


def terms_of(policy: PolicyInForce) -> Terms:
    """What the mandates in force allow, of all areas together: the tightest."""
    mandates = policy.mandates
    bounds = [area_bounds(area.name, mandates) for area in policy.gateway.areas]
    bounds = [each for each in bounds if each.block_ttl_max_ns]  # where nobody may block, no block is made
    shutting = [m.proportion for m in mandates if not {"block", "blackhole"}.isdisjoint(m.head.powers)]
    never = never_block(policy.resolved, mandates, machine_addresses())
    announcing = [m.proportion.block_ttl_max_ns for m in mandates if "blackhole" in m.head.powers]
    announced = NUMBERS_MAX if announcing else 0  # each is asked for on its own (scrubber.control.blackholes)
    return Terms(
        never=tuple(net_of(text) for text in never),
        own=own_addresses(mandates, never),
        v4_widest=max((each.prefix_v4_widest for each in shutting), default=32),
        v6_widest=max((each.prefix_v6_widest for each in shutting), default=64),
        ttl_ns_max=max([*(each.block_ttl_max_ns for each in bounds), *announcing], default=0),
        hosts_max=NUMBERS_MAX if bounds else 0,  # the block table's own bound is blocks_max, by area
        prefixes_max=NUMBERS_MAX if bounds else 0,
        announcements_max=announced,
        announcements_per_min=announced,
        flows_max=announced,
    )


class Shut:
    """The blocks that packets come of, as they were last seen, and what follows from them."""

    def __init__(self, areas: Sequence[frozenset[int]]) -> None:
        """`areas`: of each door, what it leads to."""
        self.areas = list(areas)
        self._blocks: dict[Net, dict[tuple[int, ...], Bound]] = {}  # by the areas that a block binds
        self._ranges: dict[bytes, int] = {}  # bit by bit which of a range's clients are among them

    def take(self, rows: Iterable[Row]) -> set[Net]:
        """Blocks that are new or have changed; whose they are."""
        touched = set()
        for net, areas, expires_ns, rule_id, _ in rows:
            blocks = self._blocks.get(net)
            if blocks is None:
                blocks = self._blocks[net] = {}
                if is_host(net):
                    common = range_of(net)
                    self._ranges[common] = self._ranges.get(common, 0) | _bit(net)
            blocks[areas] = Bound(expires_ns, rule_id)
            touched.add(net)
        return touched

    def lift(self, net: Net) -> None:
        """Nothing blocks it any more."""
        if self._blocks.pop(net, None) is None or not is_host(net):
            return
        common = range_of(net)
        left = self._ranges[common] & ~_bit(net)
        if left:
            self._ranges[common] = left
        else:
            del self._ranges[common]

    def drop(self, net: Net, now_ns: int) -> Drop | None:
        """What its blocks amount to; None: no door is shut to it."""
        alive = {areas: block.expires_ns for areas, block in self.blocks(net).items() if block.expires_ns > now_ns}
        if not alive:
            self.lift(net)
            return None
        doors, until_ns = 0, 0
        for index, wanted in enumerate(self.areas):
            end_ns = _covered_until(alive, wanted) if wanted else 0
            if end_ns:
                until_ns = min(until_ns, end_ns) if doors else end_ns  # what ends first; the rest is put again then
                doors |= 1 << index
        return Drop(until_ns, doors) if doors else None

    def blocks(self, net: Net) -> Mapping[tuple[int, ...], Bound]:
        """Its blocks, by the areas that they bind."""
        return self._blocks.get(net, {})

    def nets(self) -> set[Net]:
        """Whose blocks are known."""
        return set(self._blocks)

    def prefixes(self) -> list[Net]:
        """Those of them that are no hosts."""
        return [net for net in self._blocks if not is_host(net)]

    def hosts_of(self, common: bytes) -> Iterator[tuple[int, Net]]:
        """The clients of a range whose blocks are known, each with its place in it."""
        left = self._ranges.get(common, 0)
        while left:
            index = (left & -left).bit_length() - 1
            left &= left - 1
            yield index, host_in_range(common, index)

    def hosts_within(self, prefix: Net) -> list[Net]:
        """Those that lie in a prefix; none where it is wider than a range, which nobody keeps count of."""
        if spare_bits(prefix) > RANGE_BITS:
            return []
        return [host for _, host in self.hosts_of(range_of(prefix)) if within(host, prefix)]

    def count(self, common: bytes) -> int:
        """How many clients of a range have blocks that are known."""
        return self._ranges.get(common, 0).bit_count()

    def crowded(self, least: int) -> set[bytes]:
        """The ranges in which so many do."""
        return {common for common, known in self._ranges.items() if known.bit_count() >= least}


def _bit(host: Net) -> int:
    return 1 << host[3 if len(host) == V4_BYTES else 7]


def _covered_until(blocks: Mapping[tuple[int, ...], int], wanted: frozenset[int]) -> int:
    """Until when all these areas are bound, by one block or by several; 0: they are not."""
    left = set(wanted)
    for areas, end_ns in sorted(blocks.items(), key=lambda block: -block[1]):
        left.difference_update(areas)
        if not left:
            return end_ns
    return 0

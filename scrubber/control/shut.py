"""From blocks to what the enforcer is to drop: which doors are shut to whom, and until when.

Owns: the rule that a listening address may only be shut where every area that can be reached there allows it, and what
the mandates in force allow of prefixes, times and numbers. Pure: rows of the block table and times are passed in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from scrubber.config.listener import listener_keys
from scrubber.control.blocks import widest_prefixes
from scrubber.control.policy import PolicyInForce
from scrubber.enforce.backend import DOORS_MAX, Door, Drop
from scrubber.enforce.envelope import Terms
from scrubber.enforce.net import Net, net_of
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
    v4_widest, v6_widest = widest_prefixes(mandates, [area.name for area in policy.gateway.areas])
    never = never_block(policy.resolved, mandates, machine_addresses())
    return Terms(
        never=tuple(net_of(text) for text in never),
        v4_widest=max(v4_widest, 1),
        v6_widest=max(v6_widest, 1),
        ttl_ns_max=max((each.block_ttl_max_ns for each in bounds), default=0),
        hosts_max=NUMBERS_MAX if bounds else 0,  # the block table's own bound is blocks_max, by area
        prefixes_max=NUMBERS_MAX if bounds else 0,
    )


class Shut:
    """The blocks that packets come of, as they were last seen, and what follows from them."""

    def __init__(self, areas: Sequence[frozenset[int]]) -> None:
        """`areas`: of each door, what it leads to."""
        self.areas = list(areas)
        self._blocks: dict[Net, dict[tuple[int, ...], Bound]] = {}  # by the areas that a block binds

    def take(self, rows: Iterable[Row]) -> set[Net]:
        """Blocks that are new or have changed; whose they are."""
        touched = set()
        for net, areas, expires_ns, rule_id, _ in rows:
            self._blocks.setdefault(net, {})[areas] = Bound(expires_ns, rule_id)
            touched.add(net)
        return touched

    def lift(self, net: Net) -> None:
        """Nothing blocks it any more."""
        self._blocks.pop(net, None)

    def drop(self, net: Net, now_ns: int) -> Drop | None:
        """What its blocks amount to; None: no door is shut to it."""
        alive = {areas: block.expires_ns for areas, block in self.blocks(net).items() if block.expires_ns > now_ns}
        if not alive:
            self._blocks.pop(net, None)
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


def _covered_until(blocks: Mapping[tuple[int, ...], int], wanted: frozenset[int]) -> int:
    """Until when all these areas are bound, by one block or by several; 0: they are not."""
    left = set(wanted)
    for areas, end_ns in sorted(blocks.items(), key=lambda block: -block[1]):
        left.difference_update(areas)
        if not left:
            return end_ns
    return 0

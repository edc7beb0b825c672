"""Places that things keep while the gateway lives: areas, origin pools and origins by their names.

Owns who gets which index. Shared memory and the workers speak of them by it, so that a reload keeps their state. An
area's index is never given to another; those of pools and origins that are gone are given out again when no other is
left, the longest gone first: what is kept for them carries a key, and another key's state counts as none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from scrubber.config.gateway import AREAS_MAX, Area, Gateway
from scrubber.config.origins import ORIGINS_MAX, POOLS_MAX, Origin, PoolSettings
from scrubber.errors import OperatorError
from scrubber.mandate.listeners import Listeners, assign_listeners


class Slots(msgspec.Struct, frozen=True):
    """Index by name: `pool_name` and `origin_name` say how they are called. Listeners are known by their address."""

    pools: dict[str, int] = {}
    origins: dict[str, int] = {}
    listeners: Listeners = Listeners()


def pool_name(area: str, pool: str) -> str:
    """How a pool is called over all areas; `pool` is empty for the area's own."""
    return f"{area}/{pool}" if pool else area


def origin_name(area: str, pool: str, origin: Origin) -> str:
    """How an origin of a pool is called over all areas."""
    return f"{pool_name(area, pool)}/{origin.address}"


def origin_key(name: str) -> int:
    """What tells the state of one origin in shared memory from that of another. Never 0."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") or 1


def pools_of(area: Area) -> list[tuple[str, tuple[Origin, ...], PoolSettings]]:
    """(name, origins, settings) of an area's pools, its own, which has no name, first."""
    return [("", area.origins, area), *((pool.name, pool.origins, pool) for pool in area.pools)]


def assign_area_ids(gateway: Gateway, previous: Mapping[str, int]) -> dict[str, int]:
    """An index for each area, kept for the gateway's life: counters, states and blocks speak of areas by it.

    Areas that went keep theirs, so that nothing of theirs passes to another. OperatorError when all are used up.
    """
    ids = dict(previous)
    free = (i for i in range(AREAS_MAX) if i not in set(previous.values()))
    for area in gateway.areas:
        if area.name not in ids:
            index = next(free, None)
            if index is None:
                hint = "stop and start the gateway: names of areas that are gone are forgotten then"
                raise OperatorError(f"more than {AREAS_MAX} areas since the gateway started", hint=hint)
            ids[area.name] = index
    return ids


def assign_slots(gateway: Gateway, previous: Slots | None = None) -> Slots:
    """An index for each pool, origin and listener. OperatorError: more of them than there may be."""
    previous = previous or Slots()
    pools: list[str] = []
    origins: list[str] = []
    for area in gateway.areas:
        for name, members, _ in pools_of(area):
            pools.append(pool_name(area.name, name))
            origins += [origin_name(area.name, name, origin) for origin in members]
    return Slots(
        _assign(pools, previous.pools, POOLS_MAX, "origin pools"),
        _assign(origins, previous.origins, ORIGINS_MAX, "origins"),
        assign_listeners(gateway.listeners, [area.name for area in gateway.areas], previous.listeners),
    )


def _assign(names: Iterable[str], previous: Mapping[str, int], at_most: int, what: str) -> dict[str, int]:
    wanted = dict.fromkeys(names)
    if len(wanted) > at_most:
        raise OperatorError(f"{len(wanted)} {what}", hint=f"there may be {at_most}")
    gone = {name: index for name, index in previous.items() if name not in wanted}
    kept = {name: previous[name] for name in wanted if name in previous}
    unused = iter(sorted(set(range(at_most)) - set(previous.values())))
    for name in wanted:
        if name not in kept:
            index = next(unused, None)
            kept[name] = gone.pop(next(iter(gone))) if index is None else index
    # The longest gone stand first.
    return {**gone, **kept}

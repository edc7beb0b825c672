"""Origins that are named: the gateway as it is once the resolver has answered.

Owns how a name becomes origins: each of its addresses is one, bounded. Pure: answers are passed in, so that the same
answers give the same image. A name without an answer is no origin until it has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from scrubber.config.gateway import Gateway
from scrubber.config.network import Endpoint
from scrubber.config.origins import ORIGINS_MAX, ORIGINS_POOL_MAX, Origin

ADDRESSES_MAX = 16  # of one name

Answers = Mapping[str, tuple[str, ...]]  # host name -> addresses in text, in an order that does not change


def names_of(gateway: Gateway) -> tuple[str, ...]:
    """Host names that stand for origins, each once."""
    found: dict[str, None] = {}
    for area in gateway.areas:
        for origins in (area.origins, *(pool.origins for pool in area.pools)):
            found |= {o.address.address: None for o in origins if o.address.family == "name"}
    return tuple(found)


def resolved(gateway: Gateway, answers: Answers) -> Gateway:
    """The gateway with addresses in place of names."""
    if not names_of(gateway):
        return gateway
    replace = msgspec.structs.replace
    room = [ORIGINS_MAX]
    areas = []
    for area in gateway.areas:
        pools = tuple(replace(pool, origins=_members(pool.origins, answers, room)) for pool in area.pools)
        areas.append(replace(area, origins=_members(area.origins, answers, room), pools=pools))
    return replace(gateway, areas=tuple(areas))


def _members(origins: Iterable[Origin], answers: Answers, room: list[int]) -> tuple[Origin, ...]:
    """A pool's origins; an address that is there already is not there twice."""
    found: dict[Endpoint, Origin] = {}
    for origin in origins:
        for each in _addresses(origin, answers):
            if each.address not in found and len(found) < ORIGINS_POOL_MAX and room[0]:
                found[each.address] = each
                room[0] -= 1
    return tuple(found.values())


def _addresses(origin: Origin, answers: Answers) -> list[Origin]:
    if origin.address.family != "name":
        return [origin]
    return [
        msgspec.structs.replace(
            origin,
            address=Endpoint("inet6" if ":" in address else "inet", address, origin.address.port),
            via=str(origin.address),
        )
        for address in answers.get(origin.address.address, ())[:ADDRESSES_MAX]
    ]

"""Origins and the pools they stand in: the part of the gateway file about protected servers.

Owns what an origin and a pool are made of. An area's own `origins` are its pool without a name; `[[area.pool]]` adds
named ones, to which routes may send requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from scrubber.config.names import NAME
from scrubber.config.network import HOST, ORIGIN_ENDPOINT, Endpoint
from scrubber.config.walk import Doc, OneOrMore, Report, integer

if TYPE_CHECKING:
    from scrubber.config.gateway import Gateway

# ext/capacity.pxd; tests/unit/test_gateway_schema.py compares.
ORIGINS_MAX = 1024
POOLS_MAX = 512
ORIGINS_POOL_MAX = 64


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A protected server. `host`: sent as Host where the area does not keep the client's; empty: its address."""

    address: Annotated[Endpoint, ORIGIN_ENDPOINT, Doc("Where it listens.", '"127.0.0.1:8000"')]
    host: Annotated[
        str,
        HOST,
        Doc("Sent as Host where the area does not keep the client's.", '"app.internal"', default="its address"),
    ] = ""
    connections_max: Annotated[
        int,
        integer(0, 65535),
        Doc("Connections to this origin; workers share them out.", "64", "connections", default="0: the area's"),
    ] = 0
    proxy_protocol: Annotated[
        Literal["off", "v1", "v2"],
        Doc(
            "Name the client at the head of each connection by the PROXY protocol; a connection then serves one client "
            "only. The origin has to expect it.",
            '"v2"',
        ),
    ] = "off"


def origin_table(value: Any) -> Any:
    """A text alone is an origin's address."""
    return {"address": value} if isinstance(value, str) else value


class Pool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Origins that may take each other's place."""

    name: Annotated[str, NAME, Doc("What routes call it; each name once in an area.", '"api"')]
    origins: Annotated[
        tuple[Origin, ...],
        OneOrMore(prepare=origin_table),
        Doc("Its origins, as those of an area.", '["127.0.0.1:8001", "127.0.0.1:8002"]'),
    ]


def check_origins(gateway: Gateway, report: Report) -> None:
    """What no single key can say: names that stand twice, and how many there may be."""
    pools = sum(1 + len(area.pools) for area in gateway.areas)
    if pools > POOLS_MAX:
        report.error("area", f"{pools} origin pools", f"at most {POOLS_MAX} in all areas together")
    total = sum(len(area.origins) + sum(len(pool.origins) for pool in area.pools) for area in gateway.areas)
    if total > ORIGINS_MAX:
        report.error("area", "too many origins", f"at most {ORIGINS_MAX} in all areas together")
    for i, area in enumerate(gateway.areas):
        here = f"area[{i}]"
        _check_members(area.origins, here, report)
        names: dict[str, int] = {}
        for k, pool in enumerate(area.pools):
            place = f"{here}.pool[{k}]"
            if pool.name in names and not report.spoiled(f"{place}.name"):
                report.error(f"{place}.name", f"{pool.name!r} is also pool[{names[pool.name]}]", "each name once")
            names.setdefault(pool.name, k)
            _check_members(pool.origins, place, report)


def _check_members(origins: tuple[Origin, ...], here: str, report: Report) -> None:
    if len(origins) > ORIGINS_POOL_MAX:
        report.error(f"{here}.origins", f"{len(origins)} origins", f"at most {ORIGINS_POOL_MAX} in one pool")
    seen: dict[Endpoint, int] = {}
    for k, origin in enumerate(origins):
        place, first = f"{here}.origins[{k}]", seen.setdefault(origin.address, k)
        if first != k and not report.spoiled(place, f"{here}.origins[{first}]"):
            report.error(place, f"{origin.address} is also origins[{first}]", "each address once in a pool")

"""Origins and the pools they stand in: the part of the gateway file about protected servers.

Owns what an origin and a pool are made of. An area's own `origins` are its pool without a name; `[[area.pool]]` adds
named ones, to which routes may send requests.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from scrubber.config.names import NAME
from scrubber.config.network import HOST, ORIGIN_ENDPOINT, Endpoint
from scrubber.config.tls import ORIGIN_TLS, OriginTls
from scrubber.config.walk import Derived, Doc, OneOrMore, Prepared, Reads, Report, integer, measured
from scrubber.errors import ValueRefused
from scrubber.units import NS_PER_S, format_duration, format_share, parse_duration_ns, parse_share_ppm

if TYPE_CHECKING:
    from scrubber.config.gateway import Gateway

# ext/capacity.pxd; tests/unit/test_gateway_schema.py compares.
ORIGINS_MAX = 1024
POOLS_MAX = 512
ORIGINS_POOL_MAX = 64
STREAMS_MIN = 1024  # HTTP/2 requests that a worker has room for, at least
ORIGINS_IDLE = 1024  # connections to origins that a worker keeps beside those of its clients

BALANCE_EXPECTED = '"least_connections", "round_robin", "hash:client" or "hash:header:NAME"'
STATUS_EXPECTED = 'a status as 200, or a range as "200-399"'
PATH_EXPECTED = 'a path as "/healthz"'
S = NS_PER_S
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_STATUSES = re.compile(r"([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?")
_PATH = re.compile(r"/[!-~]{0,1023}")


def _parse_balance(value: Any) -> str:
    if value in ("least_connections", "round_robin", "hash:client"):
        return str(value)
    name = value.removeprefix("hash:header:") if isinstance(value, str) and value.startswith("hash:header:") else ""
    if not _TOKEN.fullmatch(name):
        raise ValueRefused(f"{value!r} is no way to balance", expected=BALANCE_EXPECTED)
    return f"hash:header:{name.lower()}"


class Statuses(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A range of statuses, both ends included."""

    low: int
    high: int

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


def _parse_statuses(value: Any) -> Statuses:
    found = _STATUSES.fullmatch(str(value)) if isinstance(value, (str, int)) else None
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise ValueRefused(f"{value!r} is no status", expected=STATUS_EXPECTED)
    return Statuses(int(found[1]), int(found[2] or found[1]))


def _parse_path(value: Any) -> str:
    if not isinstance(value, str) or (value and not _PATH.fullmatch(value)):
        raise ValueRefused(f"{value!r} is no path", expected=PATH_EXPECTED)
    return value


BALANCE = Reads(
    _parse_balance,
    "least_connections",
    '`"least_connections"`, `"round_robin"`, `"hash:client"`, `"hash:header:NAME"`',
)
STATUSES = Reads(_parse_statuses, Statuses(200, 399), "status, or range of them", lambda s: f'"{s}"')
HEALTH_PATH = Reads(_parse_path, "", "path")


def _time(low: str, high: str) -> Reads:
    return measured(parse_duration_ns, format_duration, parse_duration_ns(low), parse_duration_ns(high))


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the supervisor finds out whether an origin serves; without `http` and `tcp` it does not ask."""

    http: Annotated[str, HEALTH_PATH, Doc("Ask for this path.", '"/healthz"', default="not asked")] = ""
    tcp: Annotated[bool, Doc("A connection that comes about is enough.")] = False
    expect: Annotated[
        tuple[Annotated[Statuses, STATUSES], ...],
        OneOrMore(),
        Doc("Statuses of an origin that serves.", '["200-299", 401]', default="200-399"),
    ] = (Statuses(200, 399),)
    host: Annotated[str, HOST, Doc("Sent as Host.", '"app.internal"', default="the origin's")] = ""
    interval_ns: Annotated[int, _time("100ms", "1h"), Doc("From one check of an origin to the next.")] = msgspec.field(
        default=5 * S, name="interval"
    )
    timeout_ns: Annotated[int, _time("10ms", "1m"), Doc("Until the answer's head is there.")] = msgspec.field(
        default=2 * S, name="timeout"
    )
    rise: Annotated[int, integer(1, 100), Doc("Good checks in a row until it is up.", unit="checks")] = 2
    fall: Annotated[int, integer(1, 100), Doc("Bad checks in a row until it is down.", unit="checks")] = 3

    @property
    def asked(self) -> bool:
        """Whether there is anything to check."""
        return bool(self.http) or self.tcp


class PoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the origins of a pool share the requests: the same keys in an area and in its named pools."""

    balance: Annotated[
        str,
        BALANCE,
        Doc(
            "Which origin takes a request: the one with the fewest in flight by weight (over all workers), in turn by "
            "weight, or always the same one for a client or for a header's value. Of a field that stands there several "
            "times the first counts; an empty value is a value like any other (all of them go to one origin); without "
            "the field it is the client's.",
            '"hash:header:X-Session"',
        ),
    ] = "least_connections"
    slow_start_ns: Annotated[
        int, _time("0s", "1h"), Doc("An origin that comes (back) takes its full share only after this time.", '"30s"')
    ] = msgspec.field(default=0, name="slow_start")
    eject_after: Annotated[
        int,
        integer(0, 1000),
        Doc("Connects in a row that fail until an origin is left out for a time, unless it is the last; 0: never."),
    ] = 3
    eject_time_ns: Annotated[int, _time("100ms", "1h"), Doc("How long the first time; it doubles.")] = msgspec.field(
        default=S, name="eject_time"
    )
    eject_time_max_ns: Annotated[int, _time("100ms", "1d"), Doc("How long at most.")] = msgspec.field(
        default=60 * S, name="eject_time_max"
    )
    retry_budget_ppm: Annotated[
        int,
        measured(parse_share_ppm, format_share, 0, 1_000_000),
        Doc("Further tries, as a share of the requests of the last 10 s (ten tries are always allowed)."),
    ] = msgspec.field(default=200_000, name="retry_budget")
    health: Annotated[Health, Doc("How it is found out whether an origin serves.")] = Health()


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A protected server. `host`: sent as Host where the area does not keep the client's; empty: its address."""

    address: Annotated[
        Endpoint,
        ORIGIN_ENDPOINT,
        Doc("Where it listens; each address that a name has is an origin.", '"127.0.0.1:8000"'),
    ]
    host: Annotated[
        str,
        HOST,
        Doc("Sent as Host where the area does not keep the client's.", '"app.internal"', default="its address"),
    ] = ""
    connections_max: Annotated[
        int,
        integer(0, 65535),
        Doc(
            "Connections to this origin, in use and idle, tunnels apart; workers share them out.",
            "64",
            "connections",
            default="0: the area's",
        ),
    ] = 0
    weight: Annotated[int, integer(1, 256), Doc("Its share against the others of its pool.", "3")] = 1
    backup: Annotated[bool, Doc("Only while none of the others serves.")] = False
    tls: Annotated[
        OriginTls | None, ORIGIN_TLS, Doc("Speak TLS to it.", '{ name = "app.internal" }', default="clear text")
    ] = None
    protocol: Annotated[
        Literal["http/1.1", "h2c"],
        Doc(
            "What it speaks: `h2c` is HTTP/2 in clear text with prior knowledge, as gRPC servers do. Trailers pass "
            "to HTTP/2 clients that take them.",
            '"h2c"',
        ),
    ] = "http/1.1"
    via: Annotated[str, Derived()] = ""  # the name and port that the address came from
    proxy_protocol: Annotated[
        Literal["off", "v1", "v2"],
        Doc(
            "Name the client at the head of each connection by the PROXY protocol; a connection then serves one client "
            "only. The origin has to expect it.",
            '"v2"',
        ),
    ] = "off"


def _origin_table(value: Any) -> Any:
    return {"address": value} if isinstance(value, str) else value


ORIGIN = Prepared(_origin_table, 'an address or a table, as "127.0.0.1:8000" or { address = "127.0.0.1:8000" }')


class Pool(PoolSettings, frozen=True, forbid_unknown_fields=True):
    """Origins that may take each other's place."""

    name: Annotated[str, NAME, Doc("What routes call it; each name once in an area.", '"api"')]
    origins: Annotated[
        tuple[Annotated[Origin, ORIGIN], ...],
        OneOrMore(),
        Doc("Its origins, as those of an area.", '["127.0.0.1:8001", "127.0.0.1:8002"]'),
    ]


def streams_of_worker(clients: int) -> int:
    """HTTP/2 requests that a worker with room for so many clients has room for: most clients have one connection."""
    return max(clients, STREAMS_MIN)


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
        _check_settings(area, here, report)
        _check_health(area, area.origins, here, report)
        names: dict[str, int] = {}
        for k, pool in enumerate(area.pools):
            place = f"{here}.pool[{k}]"
            if pool.name in names and not report.spoiled(f"{place}.name"):
                report.error(f"{place}.name", f"{pool.name!r} is also pool[{names[pool.name]}]", "each name once")
            names.setdefault(pool.name, k)
            _check_members(pool.origins, place, report)
            _check_settings(pool, place, report)
            _check_health(pool, pool.origins, place, report)


def _check_settings(settings: PoolSettings, here: str, report: Report) -> None:
    if settings.eject_time_ns > settings.eject_time_max_ns and not report.spoiled(
        f"{here}.eject_time", f"{here}.eject_time_max"
    ):
        report.error(f"{here}.eject_time", "is more than eject_time_max", "at most eject_time_max")
    if settings.health.http and settings.health.tcp:
        hint = "leave tcp out: a check by HTTP needs a connection anyway"
        report.error(f"{here}.health", "asks for both http and tcp", "one of them", hint)
    timeout, interval = f"{here}.health.timeout", f"{here}.health.interval"
    if settings.health.timeout_ns > settings.health.interval_ns and not report.spoiled(timeout, interval):
        report.warning(timeout, "is longer than the interval", "at most the interval")


def _check_health(settings: PoolSettings, origins: tuple[Origin, ...], here: str, report: Report) -> None:
    if settings.health.http and any(origin.protocol == "h2c" for origin in origins):
        hint = "checks by HTTP are HTTP/1.1"
        report.error(f"{here}.health.http", "an origin of h2c does not answer it", "health = { tcp = true }", hint)


def _check_members(origins: tuple[Origin, ...], here: str, report: Report) -> None:
    if origins and all(origin.backup for origin in origins):
        report.error(f"{here}.origins", "all of them are backups", "at least one that is none")
    if len(origins) > ORIGINS_POOL_MAX:
        report.error(f"{here}.origins", f"{len(origins)} origins", f"at most {ORIGINS_POOL_MAX} in one pool")
    seen: dict[Endpoint, int] = {}
    for k, origin in enumerate(origins):
        place, first = f"{here}.origins[{k}]", seen.setdefault(origin.address, k)
        if origin.protocol == "h2c" and origin.tls is not None and origin.tls.on:
            report.error(f"{place}.protocol", "h2c is HTTP/2 in clear text", "without tls")
        if first != k and not report.spoiled(f"{place}.address", f"{here}.origins[{first}].address"):
            report.error(place, f"{origin.address} is also origins[{first}]", "each address once in a pool")

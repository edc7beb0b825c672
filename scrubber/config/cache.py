"""`[area.cache]`: which answers are kept, and for how long.

Owns the schema and its checks of meaning; what HTTP says of caching is the core's (ext/cache_policy.pyx).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from scrubber.config.walk import Doc, Reads, Report, integer, measured
from scrubber.units import NS_PER_S, format_bytes, format_duration, parse_bytes, parse_duration_ns

if TYPE_CHECKING:
    from scrubber.config.gateway import Gateway

OBJECT_BYTES_MAX = 1024 * 1024  # CACHE_BODY_BYTES_MAX of ext/cache.pxd
STORE_SHARE = 8  # an answer has at most an eighth of the store


def _time(high: str) -> Reads:
    return measured(parse_duration_ns, format_duration, 0, parse_duration_ns(high))


class Cache(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of an area's answers. Its shape names no path: it may stand wherever settings of a request do."""

    enabled: Annotated[
        bool,
        Doc(
            "Keep answers to GET that RFC 9111 lets a shared cache keep. Never answers to requests with Authorization, "
            "Cookie or the header that the area's `account` names unless they say `public`, never answers with "
            "Set-Cookie. Needs `[memory] cache`.",
            "true",
        ),
    ] = False
    ttl_max_ns: Annotated[
        int,
        _time("365d"),
        Doc(
            "Longest time that an answer is fresh here, whatever it says. A shorter one binds what is kept already.",
            '"10m"',
        ),
    ] = msgspec.field(default=3600 * NS_PER_S, name="ttl_max")
    ttl_default_ns: Annotated[
        int,
        _time("1d"),
        Doc(
            "Freshness of answers that say nothing about it and have a status that may be kept (200, 301, 404 …); "
            "`0s`: these are not kept. One second makes a flood cost one request a second.",
            '"1s"',
        ),
    ] = msgspec.field(default=0, name="ttl_default")
    stale_max_ns: Annotated[
        int,
        _time("30d"),
        Doc(
            "How long past its freshness an answer is given while the origin cannot be reached or the area is in a "
            "rush. `must-revalidate`, `proxy-revalidate` and `s-maxage` forbid it; `stale-while-revalidate` and "
            "`stale-if-error` of the answer itself count as well.",
            '"10m"',
        ),
    ] = msgspec.field(default=60 * NS_PER_S, name="stale_max")
    object_bytes_max: Annotated[
        int,
        measured(parse_bytes, format_bytes, 0, OBJECT_BYTES_MAX),
        Doc("Largest body that is kept.", '"256KiB"'),
    ] = 256 * 1024
    client_no_cache: Annotated[
        Literal["ignore", "honour"],
        Doc(
            "Whether `no-cache`, `max-age`, `min-fresh` and `Pragma` of a client make us ask the origin. `ignore`: "
            "nobody gets past the cache that way. `only-if-cached` always counts, `no-store` for the request's own "
            "answer: what is kept already is given all the same."
        ),
    ] = "ignore"
    wait_ns: Annotated[
        int,
        _time("5m"),
        Doc(
            "How long a request (GET, HEAD; parts, too) waits for the same answer being fetched for another; then it "
            "asks itself.",
            '"10s"',
        ),
    ] = msgspec.field(default=10 * NS_PER_S, name="wait")
    wait_max: Annotated[
        int,
        integer(0, 1_000_000),
        Doc(
            "Requests that wait so (503 beyond; newcomers have three quarters of it); workers share them out.",
            unit="requests",
        ),
    ] = 8192
    cache_status: Annotated[bool, Doc("Send `Cache-Status` (RFC 9211).")] = False


def check_cache(gateway: Gateway, report: Report) -> None:
    """What the walk over single values cannot see."""
    for i, area in enumerate(gateway.areas):
        here = f"area[{i}].cache"
        if not area.cache.enabled:
            continue
        if area.cache.ttl_max_ns == 0:
            report.error(f"{here}.ttl_max", "0s keeps nothing", "a time above 0s", "or say enabled = false")
        if report.spoiled("memory.cache"):
            continue
        if gateway.memory.cache == 0:
            hint = 'add [memory] cache = "64MiB"; it is made when the gateway starts'
            report.warning(f"{here}.enabled", "nothing is kept: there is no memory for it", "[memory] cache", hint)
        elif area.cache.object_bytes_max > gateway.memory.cache // STORE_SHARE and not report.spoiled(
            f"{here}.object_bytes_max"
        ):
            most = format_bytes(gateway.memory.cache // STORE_SHARE)
            hint = "larger answers are passed through; give [memory] cache more, or lower object_bytes_max"
            report.warning(f"{here}.object_bytes_max", "is more than the store takes", f"at most {most}", hint)

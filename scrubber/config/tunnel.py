"""Upgrades that an area lets through, and what a tunnel may take: `upgrade` and `[area.tunnel]` of the gateway file.

Owns their schema, defaults and checks. A tunnel is what a connection becomes once the origin has answered 101.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from scrubber.config.walk import Doc, OneOrMore, Reads, integer, measured
from scrubber.errors import ValueRefused
from scrubber.units import NS_PER_S, format_bytes, format_duration, parse_bytes, parse_duration_ns

_PROTOCOL = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,32}(/[A-Za-z0-9!#$%&'*+.^_`|~-]{1,16})?")
_EXPECTED = 'a protocol as Upgrade has it, for instance "websocket"'
S = NS_PER_S


def _parse_protocol(value: Any) -> str:
    if not isinstance(value, str) or not _PROTOCOL.fullmatch(value):
        raise ValueRefused(f"{value!r} is not a protocol", expected=_EXPECTED)
    name = value.lower()
    if name.partition("/")[0] in ("h2c", "http", "tls"):
        hint = "requests inside such a tunnel would pass every rule unseen"
        raise ValueRefused(f"an upgrade to {value!r} is never passed on", expected=_EXPECTED, hint=hint)
    return name


def _time(low: str, high: str) -> Reads:
    return measured(parse_duration_ns, format_duration, parse_duration_ns(low), parse_duration_ns(high))


PROTOCOL = Reads(_parse_protocol, "", "protocol, as Upgrade has it")
Upgrades = Annotated[
    tuple[Annotated[str, PROTOCOL], ...],
    OneOrMore(at_least=0),
    Doc(
        "Protocols that a client may upgrade to; the origin decides with its 101. `[]`: none, Upgrade is dropped. A "
        "WebSocket needs its key and version, else it is a plain GET.",
        '["websocket"]',
    ),
]


class Tunnel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one tunnel may take, and how many there may be. Bytes, counts, nanoseconds; 0: no limit."""

    bytes_max: Annotated[
        int,
        measured(parse_bytes, format_bytes, 0, 2**50),
        Doc("Bytes through one tunnel, each way on its own; one that would carry more is cut. `0B`: no limit."),
    ] = 0
    idle_timeout_ns: Annotated[
        int, _time("100ms", "7d"), Doc("A tunnel without a byte either way for this long is cut.")
    ] = msgspec.field(default=300 * S, name="idle_timeout")
    message_timeout_ns: Annotated[
        int,
        _time("0s", "7d"),
        Doc(
            "A WebSocket without a message either way for this long is cut: pings, pongs and closes keep it alive for "
            "`idle_timeout`, not for this. Other protocols: every byte counts. `0s`: no limit."
        ),
    ] = msgspec.field(default=3600 * S, name="message_timeout")
    lifetime_max_ns: Annotated[
        int, _time("0s", "30d"), Doc("A tunnel is cut at this age, however busy it is. `0s`: no limit.")
    ] = msgspec.field(default=24 * 3600 * S, name="lifetime_max")
    client_max: Annotated[
        int,
        integer(1, 2**24),
        Doc("Tunnels of one client in this area, over all workers; the next one is answered 429.", unit="tunnels"),
    ] = 16
    total_max: Annotated[
        int,
        integer(1, 2**24),
        Doc(
            "Tunnels in this area, over all workers; the next one is answered 503. Each is one of `connections_max`.",
            unit="tunnels",
        ),
    ] = 1024

"""[enforcer.upstream]: the routers that are asked to drop for us, and by whom they are asked."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any

import msgspec

from scrubber.config.walk import Doc, OneOrMore, Reads, Report, integer
from scrubber.errors import ValueRefused

ASN_MAX = 2**32 - 1
COMMUNITY_EXPECTED = 'a community as "64513:667" (RFC 1997), or "4200000000:666:1" (RFC 8092)'
ADDRESS_EXPECTED = 'an address as "192.0.2.2"'


def _parse_community(value: Any) -> tuple[int, ...]:
    parts = value.split(":") if isinstance(value, str) else []
    most = 65535 if len(parts) == 2 else ASN_MAX
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) <= most for part in parts):
        raise ValueRefused(f"{value!r} is no community", expected=COMMUNITY_EXPECTED, hint="the provider says which")
    return tuple(int(part) for part in parts)


def _parse_address(value: Any) -> str:
    try:
        found = ipaddress.ip_address(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or found.is_unspecified or found.is_multicast or "%" in str(found):
        raise ValueRefused(f"{value!r} is not a router's address", expected=ADDRESS_EXPECTED)
    return str(found)


def _parse_router_id(value: Any) -> str:
    text = _parse_address(value)
    if ":" in text:
        raise ValueRefused(f"{value!r} is not a router id", expected="an IPv4 address", hint="one of this machine's")
    return text


def _parse_password(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 80 or set(value) & set('"\\') or not value.isascii():
        value = None
    if value is None or not all("!" <= letter <= "~" for letter in value):
        raise ValueRefused(
            "the password of a session cannot be written down", expected="1 to 80 visible ASCII characters"
        )
    return str(value)


COMMUNITY = Reads(
    _parse_community, None, COMMUNITY_EXPECTED, lambda found: f'"{":".join(map(str, found))}"' if found else "none"
)
ADDRESS = Reads(_parse_address, "", ADDRESS_EXPECTED)
ROUTER_ID = Reads(_parse_router_id, "", "an IPv4 address")
PASSWORD = Reads(_parse_password, "", "visible ASCII characters")


class Neighbour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The router at the other end of a session; the session carries the family of its addresses."""

    address: Annotated[str, ADDRESS, Doc("Of the provider's router.", '"192.0.2.2"')]
    asn: Annotated[int, integer(1, ASN_MAX), Doc("Its autonomous system.", "64513", "number")]
    local_address: Annotated[
        str, ADDRESS, Doc("Where the session comes from; a multihop session needs it.", '"192.0.2.1"', default="any")
    ] = ""
    multihop: Annotated[int, integer(0, 255), Doc("At most so many hops away; 0: on the same link.", unit="hops")] = 0
    password: Annotated[str, PASSWORD, Doc("TCP MD5 (RFC 2385).", '"as-agreed"', default="none")] = ""
    next_hop: Annotated[
        str, ADDRESS, Doc("What blackholes are announced with.", '"192.0.2.250"', default="our end of the session")
    ] = ""


class Upstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who announces to whom: `scrubber enforce bird-config` prints the BIRD configuration for it."""

    router_id: Annotated[str, ROUTER_ID, Doc("Of our BIRD.", '"192.0.2.1"')]
    asn: Annotated[int, integer(1, ASN_MAX), Doc("Our autonomous system.", "64512", "number")]
    neighbours: Annotated[tuple[Neighbour, ...], OneOrMore(), Doc("The provider's routers: a session each.")] = (
        msgspec.field(name="neighbour")
    )
    source_community: Annotated[
        tuple[int, ...] | None,
        COMMUNITY,
        Doc("What a provider that drops by source has for it.", '"64513:667"', default="no source is announced"),
    ] = None
    announcements_max: Annotated[
        int, integer(1, 10_000), Doc("Blackholes that are announced at once.", unit="routes")
    ] = 64


def check_upstream(upstream: Upstream | None, protects: tuple[str, ...], report: Report) -> None:
    """What its parts mean together, and with what is protected."""
    if upstream is None:
        return
    if not protects and not report.spoiled("enforcer.protects"):
        hint = 'protects = ["203.0.113.0/24"]: nothing but what lies in it is ever given up'
        report.error("enforcer.protects", "blackholes need to know what is ours", "prefixes", hint)
    for k, each in enumerate(upstream.neighbours):
        here = f"enforcer.upstream.neighbour[{k}]"
        if each.multihop and not each.local_address and not report.spoiled(f"{here}.local_address"):
            report.error(f"{here}.local_address", "a multihop session has none", "the address that it comes from")
        for name in ("local_address", "next_hop"):
            value = getattr(each, name)
            if value and (":" in value) != (":" in each.address) and not report.spoiled(f"{here}.{name}"):
                report.error(f"{here}.{name}", "is not of the neighbour's family", "an address of the same family")

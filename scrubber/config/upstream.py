"""[enforcer.upstream]: the routers that are asked to drop for us, and by whom they are asked."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal

import msgspec

from scrubber.config.network import INTERFACE
from scrubber.config.walk import Doc, OneOrMore, Reads, Report, integer, measured
from scrubber.errors import ValueRefused
from scrubber.units import format_bytes_per_s, parse_bytes_per_s

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


class FlowNeighbour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A router that takes FlowSpec rules, over a session of their own."""

    address: Annotated[str, ADDRESS, Doc("Of the provider's router: we connect to it, to port 179.", '"192.0.2.3"')]
    asn: Annotated[int, integer(1, ASN_MAX), Doc("Its autonomous system.", "64513", "number")]
    local_address: Annotated[str, ADDRESS, Doc("Where the session comes from.", '"192.0.2.1"')]
    password: Annotated[str, PASSWORD, Doc("TCP MD5 (RFC 2385).", '"as-agreed"', default="none")] = ""
    hold_s: Annotated[int, integer(3, 65535), Doc("After so long a silence the session is over.", unit="s")] = 90


class Flowspec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """FlowSpec (RFC 8955), by an ExaBGP that the gateway starts: see [flowspec](flowspec.md)."""

    neighbours: Annotated[tuple[FlowNeighbour, ...], OneOrMore(), Doc("Routers that take rules: all get all.")] = (
        msgspec.field(name="neighbour")
    )
    families: Annotated[
        tuple[Literal["ipv4", "ipv6"], ...], OneOrMore(), Doc("What the sessions carry; other rules are refused.")
    ] = ("ipv4", "ipv6")
    rules_max: Annotated[int, integer(1, 100), Doc("Rules that are announced at once.", unit="rules")] = 64


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
    announcements_per_min: Annotated[
        int, integer(1, 10_000), Doc("Blackholes and rules that are announced anew within a minute.", unit="routes")
    ] = 60
    link_interfaces: Annotated[
        tuple[Annotated[str, INTERFACE], ...],
        OneOrMore(at_least=0),
        Doc("Where the line to the provider ends: what comes in there is what a rule's `link_load` means.", '["eth0"]'),
    ] = ()
    link_rate: Annotated[
        int,
        measured(parse_bytes_per_s, format_bytes_per_s, 0, 2**40),
        Doc("What that line carries, in bytes (a gigabit is `125MB/s`); `0B/s`: no rule on `link_load` ever holds."),
    ] = 0
    flowspec: Annotated[Flowspec | None, Doc("Rules instead of blackholes, by ports and the like.")] = None


def check_upstream(upstream: Upstream | None, protects: tuple[str, ...], report: Report) -> None:
    """What its parts mean together, and with what is protected."""
    if upstream is None:
        return
    if not protects and not report.spoiled("enforcer.protects"):
        hint = 'protects = ["203.0.113.0/24"]: nothing but what lies in it is ever given up'
        report.error("enforcer.protects", "blackholes need to know what is ours", "prefixes", hint)
    if upstream.link_rate and not upstream.link_interfaces and not report.spoiled("enforcer.upstream.link_interfaces"):
        hint = 'link_interfaces = ["eth0"]; ip link shows them'
        report.error("enforcer.upstream.link_interfaces", "a line has an end here", "interfaces", hint)
    _check_flowspec(upstream.flowspec, report)
    for k, each in enumerate(upstream.neighbours):
        here = f"enforcer.upstream.neighbour[{k}]"
        if each.multihop and not each.local_address and not report.spoiled(f"{here}.local_address"):
            report.error(f"{here}.local_address", "a multihop session has none", "the address that it comes from")
        for name in ("local_address", "next_hop"):
            value = getattr(each, name)
            if value and (":" in value) != (":" in each.address) and not report.spoiled(f"{here}.{name}"):
                report.error(f"{here}.{name}", "is not of the neighbour's family", "an address of the same family")


def _check_flowspec(flowspec: Flowspec | None, report: Report) -> None:
    for k, each in enumerate(flowspec.neighbours if flowspec is not None else ()):
        here = f"enforcer.upstream.flowspec.neighbour[{k}]"
        if report.spoiled(f"{here}.address") or report.spoiled(f"{here}.local_address"):
            continue
        if (":" in each.local_address) != (":" in each.address):
            expected = "an address of the same family"
            report.error(f"{here}.local_address", "is not of the neighbour's family", expected)
        if flowspec is not None and each.address in [other.address for other in flowspec.neighbours[:k]]:
            report.error(f"{here}.address", f"{each.address} is there twice", "each router once")

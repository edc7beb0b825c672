"""[enforcer]: whether blocks go down into the kernel, by what, and how far that may go."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from scrubber.config.network import INTERFACE, PREFIX
from scrubber.config.upstream import Upstream, check_upstream
from scrubber.config.walk import Doc, OneOrMore, Reads, Report, integer, measured, nearest
from scrubber.errors import ValueRefused
from scrubber.units import NS_PER_S, format_duration, parse_duration_ns

BackendName = Literal["xdp", "nft", "route"]
BACKEND_NAMES: tuple[BackendName, ...] = ("xdp", "nft", "route")
AGGREGATE_MIN = 8
RANGE_CLIENTS = 256  # the core looks no further for people who would be blocked with a prefix


def _parse_backend(value: Any) -> str:
    if value in BACKEND_NAMES:
        return str(value)
    expected = ", ".join(f'"{name}"' for name in BACKEND_NAMES)
    raise ValueRefused(f"{value!r} is no backend", expected=expected, hint=nearest(str(value), BACKEND_NAMES))


BACKEND = Reads(_parse_backend, "nft", '`"xdp"`, `"nft"`, `"route"`', lambda value: f'"{value}"')


class Enforcer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A process of its own, with CAP_NET_ADMIN alone. What it may never do is fixed when the gateway starts: a change
    here takes `scrubber upgrade`."""

    drop: Annotated[
        tuple[Annotated[str, BACKEND], ...],
        OneOrMore(),
        Doc(
            "What drops the packets of blocked sources, in the order in which they are asked: the next one takes what "
            "one is full for, or what this machine does not have. `xdp` and `nft` drop what goes to our listening "
            "addresses alone; `route` cannot tell, and takes only blocks that bind every area.",
            '["xdp", "nft"]',
        ),
    ] = ("nft",)
    interfaces: Annotated[
        tuple[Annotated[str, INTERFACE], ...],
        OneOrMore(at_least=0),
        Doc(
            "Where clients come in: `xdp` needs them; `nft` drops there at ingress, before anything else sees a "
            "packet, and without them at prerouting, on all.",
            '["eth0"]',
        ),
    ] = ()
    xdp_mode: Annotated[
        Literal["auto", "native", "generic"], Doc("`auto`: in the driver where it can, else behind it.")
    ] = "auto"
    hosts_max: Annotated[
        int, integer(0, 10_000_000), Doc("Blocked clients of either family in the kernel.", unit="clients")
    ] = 65536
    prefixes_max: Annotated[int, integer(0, 65536), Doc("Blocked prefixes of either family.", unit="prefixes")] = 1024
    prefix_v4_widest: Annotated[
        int, integer(8, 32), Doc("No wider IPv4 prefix goes down, whatever a mandate allows.", unit="bits")
    ] = 16
    prefix_v6_widest: Annotated[int, integer(16, 64), Doc("The same of IPv6.", unit="bits")] = 32
    aggregate: Annotated[
        int,
        integer(0, RANGE_CLIENTS),
        Doc(
            "So many blocked clients of one prefix become one blocked prefix, where they are a quarter of all that it "
            "holds and its mandate allows it; at least 8; `0`: never. No prefix of more than 256 clients comes of it "
            "(an IPv4 /24, an IPv6 /56).",
            unit="clients",
        ),
    ] = 64
    ttl_max_ns: Annotated[
        int,
        measured(parse_duration_ns, format_duration, parse_duration_ns("1s"), parse_duration_ns("31d")),
        Doc("No drop lasts longer without being renewed."),
    ] = msgspec.field(default=24 * 3600 * NS_PER_S, name="ttl_max")
    quiet_ns: Annotated[
        int,
        measured(parse_duration_ns, format_duration, 0, parse_duration_ns("1d")),
        Doc(
            "Whoever sends nothing for so long is let back in before its time, after a probe of half as long in which "
            "the gateway itself refuses it; `0s`: nobody. Blocks by hand last as long as they were asked for."
        ),
    ] = msgspec.field(default=300 * NS_PER_S, name="quiet")
    on_stop: Annotated[
        Literal["withdraw", "leave"],
        Doc(
            "When the gateway stops: take everything out of the kernel, or leave it there until its time is up (where "
            "the backend can: `nft`)."
        ),
    ] = "withdraw"
    protects: Annotated[
        tuple[Annotated[str, PREFIX], ...],
        OneOrMore(at_least=0),
        Doc(
            "Prefixes of ours: nothing in them is ever dropped as a source, and nothing else is ever given up as a "
            "victim.",
            '["203.0.113.0/24"]',
        ),
    ] = ()
    upstream: Annotated[Upstream | None, Doc("The provider's routers: see [upstream](upstream.md).")] = None


def check_enforcer(enforcer: Enforcer | None, report: Report) -> None:
    """What its parts mean together."""
    if enforcer is None:
        return
    if "xdp" in enforcer.drop and not enforcer.interfaces and not report.spoiled("enforcer.interfaces"):
        hint = 'interfaces = ["eth0"]; ip link shows them'
        report.error("enforcer.interfaces", "xdp needs to know where clients come in", "interfaces", hint)
    if 0 < enforcer.aggregate < AGGREGATE_MIN and not report.spoiled("enforcer.aggregate"):
        said = f"{enforcer.aggregate} hosts are no evidence against their neighbours"
        report.error("enforcer.aggregate", said, "aggregate", f"{AGGREGATE_MIN} or more; 0: never")
    check_upstream(enforcer.upstream, enforcer.protects, report)
    for k, name in enumerate(enforcer.drop):
        if name in enforcer.drop[:k]:
            report.error(f"enforcer.drop[{k}]", f"{name!r} is named twice", "each once")

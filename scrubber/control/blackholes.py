"""Blackholes upstream: what may be asked of the routers there, under which clause, and for how long.

Owns the question and the order of its checks. A blackhole cuts traffic outside this machine, so every area that would
miss it has to allow it: of a source all areas, of a victim those that are served at its address. The safety envelope is
asked by the caller, here and in the enforcer. Pure: policies and times are passed in.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from scrubber.control.blocks import CLIENT_V6_PLEN, ORDER_TTL_S_MAX, Refusal
from scrubber.control.policy import PolicyInForce
from scrubber.enforce.envelope import Kind, Spans
from scrubber.enforce.flow import Action, Flow
from scrubber.enforce.net import Net, is_v4, net_of, plen
from scrubber.errors import ValueRefused
from scrubber.mandate.schema import POWERS, Mandate, Rule
from scrubber.units import NS_PER_S, format_duration, parse_bytes_per_s

RANGE_EXPECTED = 'a number, or a range as "1024-65535"'
Ranges = Annotated[tuple[str, ...], msgspec.Meta(max_length=8)]
Line = Annotated[str, msgspec.Meta(max_length=500)]


class BlackholeOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Someone asks to have a network dropped upstream. `loss`: of a victim, what is lost with it, in words."""

    net: Annotated[str, msgspec.Meta(max_length=100)]
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=ORDER_TTL_S_MAX)]
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    loss: Line = ""


class FlowOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Someone asks for a FlowSpec rule. Ports and lengths are "53" or "1024-65535"; `action`: "discard", or what may
    pass as "1MB/s"; `loss`: of a rule without a source."""

    destination: Annotated[str, msgspec.Meta(max_length=100)]
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=ORDER_TTL_S_MAX)]
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    source: Annotated[str, msgspec.Meta(max_length=100)] = ""
    protocols: Annotated[tuple[int, ...], msgspec.Meta(max_length=8)] = ()
    source_ports: Ranges = ()
    destination_ports: Ranges = ()
    packet_lengths: Ranges = ()
    action: Annotated[str, msgspec.Meta(max_length=100)] = "discard"
    loss: Line = ""


class WithdrawOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Someone asks to take it back: a network, or what a rule matches."""

    target: Annotated[str, msgspec.Meta(max_length=1000)]
    reason: Line = ""


class Announced(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One that is wanted upstream. `until_ns` is CLOCK_MONOTONIC, on disk wall clock as `since_ns` is."""

    kind: Literal["victim", "source", "flow"]
    target: str  # a network, or what a rule matches
    clause: str
    reason: str
    loss: str = ""
    since_ns: int
    until_ns: int
    flow: Flow | None = None  # whose own end counts for nothing


@dataclass(frozen=True)
class Grant:
    """What a mandate allows. `ttl_ns`: never past its end. `signatures`: how many the mandate wants for it."""

    clause: str
    ttl_ns: int
    signatures: int


def clause_by_hand(mandate: str) -> str:
    """What a blackhole by hand is recorded under: the mandate's power itself."""
    return f"{mandate}/{POWERS}blackhole"


def kind_of(net: Net, protects: Iterable[str]) -> Kind:
    """Of ours it is a victim, else a source."""
    return "victim" if Spans(net_of(text) for text in protects).touches(net) else "source"


def net_meant(text: str, protects: Iterable[str]) -> tuple[Net, Kind]:
    """What a text names. An IPv6 address that is not ours stands for its /64: that is a client. ValueRefused."""
    net = net_of(text.strip())
    kind = kind_of(net, protects)
    if kind == "source" and not is_v4(net) and plen(net) > CLIENT_V6_PLEN:
        network = ipaddress.ip_network((net[:-1], CLIENT_V6_PLEN), strict=False)
        net = network.network_address.packed + bytes([CLIENT_V6_PLEN])
    return net, kind


def own_addresses(mandates: Sequence[Mandate], never: Iterable[str]) -> tuple[Net, ...]:
    """Of a never-block list, what no mandate names or touches: it is there because it is ours."""
    named = Spans(net_of(text) for mandate in mandates for text in mandate.never_block)
    return tuple(net for net in map(net_of, never) if not named.touches(net))


def flow_meant(order: FlowOrder, until_ns: int) -> Flow:
    """The rule that an order describes. ValueRefused."""
    return Flow(
        destination=net_of(order.destination.strip()),
        until_ns=until_ns,
        action=_action(order.action),
        source=net_of(order.source.strip()) if order.source else None,
        protocols=tuple(sorted(order.protocols)),
        source_ports=_ranges(order.source_ports),
        destination_ports=_ranges(order.destination_ports),
        packet_lengths=_ranges(order.packet_lengths),
    )


def allowed(
    policy: PolicyInForce, areas: Sequence[str], ttl_ns: int, now: datetime.datetime, rule: str = ""
) -> Grant | Refusal:
    """Whether mandates let these areas be cut off from it for so long; none: one such mandate anywhere is enough.
    `rule`: "mandate/rule", whose mandate it has to be; the time is then cut to what is allowed."""
    able = [m for m in policy.mandates if "blackhole" in m.head.powers and m.head.not_before <= now < m.head.expires]
    if not able:
        return Refusal("no mandate in force gives the power to blackhole", 'powers = [..., "blackhole"]')
    bare = [name for name in areas if not any(name in m.head.areas for m in able)]
    if bare:
        return Refusal(
            f"no mandate gives the power to blackhole what would reach area {bare[0]}",
            "it cuts traffic before this machine, so all areas concerned have to allow it",
        )
    concerned = [m for m in able if not areas or set(areas) & set(m.head.areas)]
    longest_ns = min(m.proportion.block_ttl_max_ns for m in concerned)
    left_ns = min((m.head.expires - now) // datetime.timedelta(microseconds=1) * 1000 for m in concerned)
    if ttl_ns > longest_ns and not rule:
        longest = format_duration(longest_ns)
        return Refusal(f"the mandates allow {longest} at most", f"--for {longest}; longer needs new evidence")
    cited = max(concerned, key=lambda m: len(set(m.head.areas) & set(areas)))
    return Grant(
        clause=rule or clause_by_hand(cited.id),
        ttl_ns=min(ttl_ns, longest_ns, left_ns),
        signatures=max(m.proportion.blackhole_signatures for m in concerned),
    )


def areas_at(policy: PolicyInForce, victim: Net) -> list[str]:
    """Which are served at its address, by the listeners of the gateway file."""
    found: dict[str, None] = {}
    for listener in policy.gateway.listeners:
        if listener.address.family == "unix":
            continue
        address = ipaddress.ip_address(listener.address.address)
        if address.is_unspecified or Spans([net_of(str(address))]).touches(victim):
            found.update(dict.fromkeys(listener.areas))
    return list(found)


def all_areas(policy: PolicyInForce) -> list[str]:
    """Every one: what a source is cut off from."""
    return [area.name for area in policy.gateway.areas]


def load_rules(mandates: Iterable[Mandate]) -> list[tuple[str, Rule]]:
    """Rules on the link's load, with their clauses: those that a blackhole answers."""
    return [
        (f"{mandate.id}/{rule.name}", rule)
        for mandate in mandates
        for rule in mandate.rules
        if rule.when.link_load_ppm is not None and any(rung.measure == "blackhole" for rung in rule.then)
    ]


def described(each: Announced, now_ns: int, state: str) -> dict[str, Any]:
    """For people, but for its times of day. `now_ns`: CLOCK_MONOTONIC."""
    return {
        "kind": each.kind,
        "target": each.target,
        "ttl_left_s": round((each.until_ns - now_ns) / NS_PER_S, 1),
        "rule": each.clause,
        "reason": each.reason,
        "loss": each.loss,
        "action": (each.flow.action if each.flow is not None else "discard"),
        "state": state,
    }


def _action(text: str) -> Action:
    return "discard" if text == "discard" else parse_bytes_per_s(text)


def _ranges(texts: Iterable[str]) -> tuple[tuple[int, int], ...]:
    """In order, as a rule has them."""
    found = []
    for text in texts:
        first, dash, last = text.partition("-")
        if not text.isascii() or not (first.isdecimal() and (last.isdecimal() if dash else not last)):
            raise ValueRefused(f"{text!r} is no range", expected=RANGE_EXPECTED)
        found.append((int(first), int(last or first)))
    return tuple(sorted(found))

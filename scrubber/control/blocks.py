"""Blocks by hand: what an operator may ask, under which clause a source may be blocked, and the block itself.

Owns the question and the order of its checks; never-block comes last, as everywhere. A grant cites one mandate and
names what bounds the block; what the core's tables say (shared addresses, the share of known clients, the number of
blocks) is asked by `put_block`, right before the block is made.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from scrubber import _native
from scrubber.config.gateway import Gateway
from scrubber.config.network import network
from scrubber.config.walk import nearest
from scrubber.errors import ValueRefused
from scrubber.mandate.bounds import mandate_bounds
from scrubber.mandate.compile import rule_id
from scrubber.mandate.never_block import machine_addresses, networks, never_block, touching
from scrubber.mandate.schema import POWERS, Mandate
from scrubber.units import NS_PER_S, format_duration

SOURCE_HINT = 'an address, a prefix as "198.51.100.0/24", or a fingerprint as "h1_415aadd4396b87a3"'
CLIENT_V6_PLEN = 64
ORDER_TTL_S_MAX = 366 * 86400


class BlockOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Someone asks to block a source. `area`: bind that area only; empty: all that the clause covers."""

    source: Annotated[str, msgspec.Meta(max_length=100)]
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=ORDER_TTL_S_MAX)]
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    area: str = ""


class UnblockOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Someone asks to lift a block."""

    source: Annotated[str, msgspec.Meta(max_length=100)]
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


@dataclass(frozen=True)
class Source:
    """Whom a block is aimed at, in the core's words: kind client, prefix or fingerprint, and its canonical text."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"h1_{self.text}" if self.kind == "fingerprint" else self.text


@dataclass(frozen=True)
class BlockGrant:
    """A block that a mandate allows. `areas`: names that it binds; `ttl_ns`: never past the mandate's end."""

    source: Source
    mandate: str
    clause: str
    rule_id: int
    areas: tuple[str, ...]
    ttl_ns: int
    ttl_max_ns: int
    blocks_max: int
    clients_share_max_ppm: int


def clause_by_hand(mandate: str) -> str:
    """What a block by hand is recorded under: the mandate's power itself. No rule may be called so."""
    return f"{mandate}/{POWERS}block"


@dataclass(frozen=True)
class Refusal:
    """Why there is no block, and what to do."""

    reason: str
    hint: str


def parse_source(text: str) -> Source:
    """The source that a text names. An IPv6 address stands for its /64: that is a client. ValueRefused."""
    fingerprint = re.fullmatch("(?:fingerprint:|h1_|fingerprint:h1_)([0-9a-fA-F]{16})", text.strip())
    if fingerprint is not None:
        return Source("fingerprint", fingerprint[1].lower())
    try:
        net = network(text.strip())
    except ValueRefused as e:
        raise ValueRefused(f"{text!r} is not a source", expected=e.expected, hint=e.hint or SOURCE_HINT) from None
    if isinstance(net, ipaddress.IPv4Network):
        return (
            Source("client", str(net.network_address))
            if net.prefixlen == net.max_prefixlen
            else Source("prefix", str(net))
        )
    if net.prefixlen == net.max_prefixlen:
        net = net.supernet(new_prefix=CLIENT_V6_PLEN)
    return Source("client" if net.prefixlen == CLIENT_V6_PLEN else "prefix", str(net))


def allowed_block(
    mandates: Sequence[Mandate],
    gateway: Gateway,
    source: str,
    ttl_s: float,
    area: str = "",
    *,
    now: datetime.datetime | None = None,
    machine: Iterable[str] | None = None,
) -> BlockGrant | Refusal:
    """The clause under which `source` may be blocked for `ttl_s`, in `area` or (empty) in all areas of one mandate.

    Of several mandates the one that covers the most areas; where none allows it, the last refusal.
    `machine`: what `machine_addresses` says (default: this one). ValueRefused: the source is none.
    """
    aimed = parse_source(source)
    if area and gateway.area(area) is None:
        names = [a.name for a in gateway.areas]
        return Refusal(f"no area {area!r}", nearest(area, names))
    if ttl_s <= 0:
        return Refusal("a block lasts some time", "as --for 10m")
    moment = now or datetime.datetime.now(datetime.UTC)
    answers = [_under(m, mandates, aimed, round(ttl_s * NS_PER_S), area, moment) for m in mandates]
    grants = [a for a in answers if isinstance(a, BlockGrant)]
    if not grants:
        refusals = [a for a in answers if isinstance(a, Refusal)]
        return (
            refusals[-1] if refusals else Refusal("no mandate is in force", "add one to mandates in the gateway file")
        )
    never = networks(never_block(gateway, mandates, machine_addresses() if machine is None else machine))
    touched = touching(never, network(aimed.text)) if aimed.kind != "fingerprint" else None
    if touched is not None:
        return Refusal(f"{touched} is never-block", "no measure may reach it: narrow the prefix")
    return max(grants, key=lambda grant: len(grant.areas))


def _under(  # noqa: PLR0917 - one question, asked in one place
    mandate: Mandate, mandates: Sequence[Mandate], source: Source, ttl_ns: int, area: str, now: datetime.datetime
) -> BlockGrant | Refusal:
    head = mandate.head
    if area and area not in head.areas:
        return Refusal(f"mandate {head.id} does not cover area {area!r}", "its areas: " + ", ".join(head.areas))
    if "block" not in head.powers:
        return Refusal(f"mandate {head.id} gives no power to block", "its powers: " + ", ".join(head.powers))
    if not head.not_before <= now < head.expires:
        return Refusal(f"mandate {head.id} is not in force", f"it holds from {head.not_before} to {head.expires}")
    wide = _too_wide(source, _covering(mandates, [area] if area else head.areas))
    if wide is not None:
        return wide
    bounds = mandate_bounds(mandate, mandates)
    if ttl_ns > bounds.block_ttl_max_ns:
        longest = format_duration(bounds.block_ttl_max_ns)
        return Refusal(
            f"mandate {head.id} allows blocks of {longest} at most", f"--for {longest}; longer needs new evidence"
        )
    left_ns = (head.expires - now) // datetime.timedelta(microseconds=1) * 1000
    return BlockGrant(
        source=source,
        mandate=head.id,
        clause=clause_by_hand(head.id),
        rule_id=rule_id(head.id, ""),  # no rule has an empty name: the power itself
        areas=(area,) if area else head.areas,
        ttl_ns=min(ttl_ns, left_ns),
        ttl_max_ns=bounds.block_ttl_max_ns,
        blocks_max=bounds.blocks_max,
        clients_share_max_ppm=bounds.clients_share_max_ppm,
    )


def _covering(mandates: Sequence[Mandate], areas: Iterable[str]) -> list[Mandate]:
    """Those that may block in one of these areas."""
    wanted = set(areas)
    return [m for m in mandates if "block" in m.head.powers and wanted & set(m.head.areas)]


def widest_prefixes(mandates: Sequence[Mandate], areas: Iterable[str]) -> tuple[int, int]:
    """Lengths of the widest IPv4 and IPv6 prefix that may be blocked there: the narrowest counts."""
    covering = [m.proportion for m in _covering(mandates, areas)]
    return (
        max((p.prefix_v4_widest for p in covering), default=0),
        max((p.prefix_v6_widest for p in covering), default=0),
    )


def _too_wide(source: Source, covering: Sequence[Mandate]) -> Refusal | None:
    """The narrowest of the widest prefixes counts."""
    if source.kind == "fingerprint":
        return None
    net = network(source.text)
    v4 = isinstance(net, ipaddress.IPv4Network)
    mandate = max(covering, key=lambda m: m.proportion.prefix_v4_widest if v4 else m.proportion.prefix_v6_widest)
    widest = mandate.proportion.prefix_v4_widest if v4 else mandate.proportion.prefix_v6_widest
    if net.prefixlen >= widest:
        return None
    return Refusal(f"{net} is wider than mandate {mandate.id} allows", f"a /{widest} or narrower")


def put_block(memory: _native.Memory, grant: BlockGrant, area_ids: Mapping[str, int]) -> str | Refusal:
    """Make the block: "new" or "extended". What the tables say against it is a refusal, and nothing was changed."""
    areas = [area_ids[name] for name in grant.areas]
    source = grant.source
    reason = _native.block_refused(memory, source.kind, source.text, areas, grant.clients_share_max_ppm)
    if reason is not None:
        return Refusal(reason, HINTS[reason])
    answer = memory.block_put(
        source.kind, source.text, areas, grant.ttl_ns, grant.ttl_max_ns, grant.blocks_max, grant.rule_id
    )
    return answer if answer in ("new", "extended") else Refusal(*REFUSED[answer])


HINTS = {
    "shared address": 'several healthy people are behind it: a rule with per = "client+fingerprint" tells them apart',
    "shared fingerprint": "too many healthy clients have it: block by address, or throttle",
    "clients_share_max": "more of the clients seen healthy would be blocked than the mandate allows: throttle",
}
REFUSED = {
    "refused_full": ("proportion.blocks_max is used up", "lift other blocks, or block a prefix"),
    "refused_ttl": (
        "block_ttl_max is used up for this source",
        "wait until its block has ended: longer needs new evidence",
    ),
    "refused_busy": ("the block table is busy", "ask again"),
    "refused_source": ("the core does not know such a source", SOURCE_HINT),
}

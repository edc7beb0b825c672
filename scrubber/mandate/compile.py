"""Gateway file and mandates → one policy image and its prefix images.

Owns the meaning of a mandate in the core's terms: which rules are asked where, what is available, how bounds of several
mandates join (the tightest wins). Deterministic: equal input, equal bytes. The image carries its own source, so that a
new supervisor finds everything in it (`restore`). ext/policy.pyx checks what is written here and trusts none of it.
"""

from __future__ import annotations

import datetime
import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from scrubber.config.gateway import Gateway
from scrubber.config.listener import Listener
from scrubber.errors import PolicyRefused
from scrubber.mandate import layout
from scrubber.mandate.bounds import mandate_bounds
from scrubber.mandate.check import AVAILABLE
from scrubber.mandate.compile_gateway import GatewayWriter, share_of_worker
from scrubber.mandate.image import Image, PrefixSets, area_mask
from scrubber.mandate.never_block import machine_addresses, never_block
from scrubber.mandate.resolved import Answers, resolved
from scrubber.mandate.schema import HELLO_KEYS, Mandate, Pattern, Rule, Rung, When
from scrubber.mandate.serials import Accepted
from scrubber.mandate.slots import Slots, assign_slots
from scrubber.units import NS_PER_S

HANDSHAKES_BURST = 8  # seconds' worth of a client's handshakes at once
DEBT_NS_MAX = 600_000_000_000  # nobody pays for more than ten minutes, however large one answer was


class Source(msgspec.Struct, frozen=True):
    """What an image was made of."""

    gateway: Gateway
    mandates: tuple[Mandate, ...]
    area_ids: dict[str, int]
    slots: Slots = Slots()
    answers: dict[str, tuple[str, ...]] = {}
    accepted: tuple[Accepted, ...] = ()


@dataclass(frozen=True)
class CompiledPolicy:
    """`rules`: names "mandate/rule" by rule index, as records have them."""

    image: bytes
    prefix_images: list[bytes]
    rules: list[str]


@dataclass(frozen=True)
class Restored:
    """What `restore` finds in an image."""

    gateway: Gateway
    mandates: tuple[Mandate, ...]
    area_ids: dict[str, int]
    generation: int
    slots: Slots
    answers: dict[str, tuple[str, ...]]
    accepted: tuple[Accepted, ...]


def next_expiry(mandates: Iterable[Mandate], now: datetime.datetime) -> datetime.datetime | None:
    """When the next of the mandates that are still valid ends."""
    return min((m.head.expires for m in mandates if m.head.expires > now), default=None)


def rule_id(mandate_id: str, rule_name: str) -> int:
    """Stable over reloads: cells, ladders and blocks know a rule by it. Never 0."""
    digest = hashlib.sha256(mandate_id.encode() + b"\0" + rule_name.encode()).digest()
    return int.from_bytes(digest[:8], "little") or 1


def compile_policy(
    gateway: Gateway,
    mandates: Sequence[Mandate],
    *,
    generation: int,
    area_ids: Mapping[str, int],
    slots: Slots | None = None,
    answers: Answers | None = None,
    accepted: tuple[Accepted, ...] = (),
    now: datetime.datetime | None = None,
    mono_ns: int | None = None,
    machine: Iterable[str] | None = None,
) -> CompiledPolicy:
    """The images of a checked gateway and its checked mandates.

    `slots`: the places of pools and origins (default: as if nothing had been before); `answers`: what names of origins
    stand for; `accepted`: versions of mandates, to be remembered. `now` and `mono_ns` are one moment on both clocks
    (default: this one); `machine`: what `machine_addresses` says.
    """
    moment = now or datetime.datetime.now(datetime.UTC)
    clock = Clock(moment, time.monotonic_ns() if mono_ns is None else mono_ns)
    found = resolved(gateway, answers or {})
    places = slots or assign_slots(found)
    source = Source(gateway, tuple(mandates), dict(area_ids), places, dict(answers or {}), accepted)
    compiler = _Compiler(found, source, clock)
    return compiler.compile(generation, machine_addresses() if machine is None else machine)


def restore(image: bytes) -> Restored:
    """Gateway and mandates that an image was made of. PolicyRefused where it is not one."""
    if len(image) < layout.HEADER.size:
        raise PolicyRefused("size")
    magic, version, _, total, generation, digest, *rest = layout.HEADER.unpack_from(image)
    if magic != layout.MAGIC or version != layout.LAYOUT_VERSION or total != len(image):
        raise PolicyRefused("magic, layout version or size")
    if hashlib.sha256(image[layout.HEADER.size :]).digest() != digest:
        raise PolicyRefused("digest")
    at = 2 * layout.SECTIONS.index("source")
    offset, count = rest[at : at + 2]
    try:
        source = msgspec.json.decode(image[offset : offset + count], type=Source)
    except msgspec.MsgspecError as e:
        raise PolicyRefused(f"source: {e}") from e
    return Restored(
        source.gateway, source.mandates, source.area_ids, generation, source.slots, source.answers, source.accepted
    )


@dataclass(frozen=True)
class Clock:
    """One moment on the wall's clock and on the monotonic one."""

    now: datetime.datetime
    mono_ns: int

    def mono_of(self, wall: datetime.datetime) -> int:
        """The monotonic time of a wall time, clamped to what 64 bits hold."""
        ahead_ns = (wall - self.now) // datetime.timedelta(microseconds=1) * 1000
        return max(0, min(self.mono_ns + ahead_ns, layout.U64_MAX))


def asked_at_accept(rule: Rule) -> bool:
    """Whether a rule on connections can be asked before any byte was read: nothing but the address matters to it."""
    only_client = msgspec.structs.replace(rule.when, client=()) == When()
    in_time = rule.limit is not None and rule.limit.unit == "connections"
    return in_time and only_client and set(rule.per) <= {"client", "prefix"}


def asked_at_hello(rule: Rule) -> bool:
    """Whether a rule is asked once a connection, with its ClientHello: about handshakes, or about nothing but who
    speaks TLS in this way."""
    if rule.limit is not None:
        return rule.limit.unit in ("handshakes", "abuses")
    about = rule.when.ja3 or rule.when.ja4
    return bool(about) and not rule.when.needs_request and set(rule.per) <= HELLO_KEYS


class _Compiler:
    """Writes all sections of one image."""

    def __init__(self, gateway: Gateway, source: Source, clock: Clock) -> None:
        """`gateway`: that of the source, names resolved."""
        self.gateway, self.mandates, self.clock = gateway, source.mandates, clock
        self.area_ids, self.slots, self.source = source.area_ids, source.slots, source
        self.image, self.prefixes = Image(), PrefixSets()
        self.listed: list[tuple[int, Mandate, Rule]] = []

    def compile(self, generation: int, machine: Iterable[str]) -> CompiledPolicy:
        gateway, limits = self.gateway, self.gateway.limits
        never = self.prefixes.add(never_block(gateway, self.mandates, machine))
        for number, mandate in enumerate(self.mandates):
            for rule in mandate.rules:
                self.listed.append((self.image.add("rules", self._rule(number, mandate, rule)), mandate, rule))
        GatewayWriter(
            gateway=gateway,
            mandates=self.mandates,
            area_ids=self.area_ids,
            slots=self.slots,
            image=self.image,
            prefixes=self.prefixes,
            rules_of_area=self._rules_of_area,
            hello_rules_of_area=self._hello_rules_of_area,
            rules_of_listener=self._rules_of_listener,
        ).write()
        self.image.bytes_of["source"] += msgspec.json.encode(self.source)
        head = (
            len(self.prefixes.sets),
            int(gateway.enforce),
            share_of_worker(limits.connections_max, gateway.workers),
            limits.connections_client_max,
            limits.tarpit_max // gateway.workers,
            next((i for i, a in enumerate(gateway.areas) if a.default), layout.NONE),
            never,
            int(bool(gateway.log.access)),
            -(-gateway.log.sample_pass_per_s // gateway.workers),
            limits.handshakes_client_per_s,
            NS_PER_S,
            HANDSHAKES_BURST * limits.handshakes_client_per_s,
            limits.http2_streams_max,
        )
        names = [f"{mandate.id}/{rule.name}" for _, mandate, rule in self.listed]
        return CompiledPolicy(self.image.finish(generation, head), self.prefixes.images(), names)

    def _rules_of_area(self, name: str, connections: bool) -> tuple[int, int]:
        """Span of an area's rules: those charged with a connection's first request, or all others."""
        found = [
            index
            for index, mandate, rule in self.listed
            if name in mandate.head.areas
            and not asked_at_hello(rule)
            and (rule.limit is not None and rule.limit.unit == "connections") == connections
        ]
        return self.image.span("area_rules", (layout.AREA_RULE.pack(i) for i in found))

    def _hello_rules_of_area(self, name: str) -> tuple[int, int]:
        """Span of an area's rules that are asked with a ClientHello."""
        found = [i for i, mandate, rule in self.listed if name in mandate.head.areas and asked_at_hello(rule)]
        return self.image.span("area_rules", (layout.AREA_RULE.pack(i) for i in found))

    def _rules_of_listener(self, listener: Listener) -> tuple[int, int]:
        """Span of the rules asked at accept: every area reachable here has to be the mandate's."""
        found = [
            index
            for index, mandate, rule in self.listed
            if asked_at_accept(rule) and listener.areas and set(listener.areas) <= set(mandate.head.areas)
        ]
        return self.image.span("area_rules", (layout.AREA_RULE.pack(i) for i in found))

    def _rule(self, number: int, mandate: Mandate, rule: Rule) -> bytes:
        limit = rule.limit
        keys = [layout.KEYS[k] for k in rule.per] + [0, 0]
        bounds = mandate_bounds(mandate, self.mandates)
        count, period_ns, burst = (limit.count, limit.period_ns, limit.burst) if limit else (0, 0, 0)
        return layout.RULE.pack(
            rule_id(mandate.id, rule.name),
            *self.image.text(f"{mandate.id}/{rule.name}"),
            *self.image.span("conditions", self._conditions(rule.when)),
            *self.image.span("rungs", (self._rung(mandate, rule, rung) for rung in rule.then)),
            keys[0],
            keys[1],
            layout.UNITS[limit.unit if limit else "none"],
            int(bool(rule.per) and not rule.names_source),
            count,
            period_ns,
            burst,
            rule.calm_ns,
            min(period_ns, DEBT_NS_MAX),
            *area_mask(self.area_ids[name] for name in mandate.head.areas),
            rule.newcomer_share_ppm,
            number,
            bounds.block_ttl_max_ns,
            bounds.blocks_max,
            bounds.clients_share_max_ppm,
            self.clock.mono_of(mandate.head.expires),
        )

    def _rung(self, mandate: Mandate, rule: Rule, rung: Rung) -> bytes:
        kept = ("observe", "throttle") if mandate.head.on_expiry == "limits" else ("observe",)
        available = layout.RUNG_VALID if rung.measure in AVAILABLE else 0
        available |= layout.RUNG_EXPIRED if rung.measure in kept else 0
        return layout.RUNG.pack(layout.MEASURES[rung.measure], available, rung.hold_ns or rule.climb_ns, rung.ttl_ns, 0)

    def _conditions(self, when: When) -> list[bytes]:
        out: list[bytes] = []
        if when.method:
            out.append(self._condition("method", arg=sum({1 << layout.METHODS[m] for m in when.method})))
        for kind, patterns in (("path", when.path), ("host", when.host), ("query", when.query)):
            out += self._any_of(kind, patterns)
        for name, test in when.header.items():
            if test.patterns:
                out += self._any_of("header", test.patterns, name.lower())
            else:
                out.append(self._condition("header", "present", name=name.lower(), negate=not test.present))
        if when.client:
            out.append(self._condition("client", arg=self.prefixes.add(when.client)))
        for kind, hashes in (("fingerprint", when.fingerprint), ("http2", when.http2)):
            for i, text in enumerate(hashes, 1):
                out.append(self._condition(kind, arg=int(text, 16), any_next=i < len(hashes)))
        for kind, prints in (("ja3", when.ja3), ("ja4", when.ja4)):
            out += self._any_of(kind, prints)
        for kind, wanted in (("known", when.known), ("account", when.account), ("rush", when.rush)):
            if wanted is not None:
                out.append(self._condition(kind, negate=not wanted))
        if when.link_load_ppm is not None:
            out.append(self._condition("never"))
        return out

    def _any_of(self, kind: str, patterns: Sequence[Pattern], name: str = "") -> list[bytes]:
        last = len(patterns) - 1
        return [
            self._condition(kind, p.match, name=name, value=p.text, any_next=i < last) for i, p in enumerate(patterns)
        ]

    def _condition(
        self,
        kind: str,
        match: str = "exact",
        *,
        arg: int = 0,
        name: str = "",
        value: str = "",
        negate: bool = False,
        any_next: bool = False,
    ) -> bytes:
        texts = (*self.image.text(name), *self.image.text(value))
        return layout.CONDITION.pack(layout.CONDITIONS[kind], layout.MATCHES[match], negate, any_next, arg, *texts, 0)

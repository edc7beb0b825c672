"""Gateway file and mandates → one policy image and its prefix images.

Owns the meaning of a mandate in the core's terms: which rules are asked where, what is available, how bounds of several
mandates join (the tightest wins). Deterministic: equal input, equal bytes. The image carries its own source, so that a
new supervisor finds everything in it (`restore`). ext/policy.pyx checks what is written here and trusts none of it.
"""

from __future__ import annotations

import datetime
import hashlib
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from scrubber.config.gateway import AREAS_MAX, Area, Gateway, Origin
from scrubber.config.listener import Listener
from scrubber.config.network import Endpoint
from scrubber.errors import OperatorError, PolicyRefused
from scrubber.mandate import layout
from scrubber.mandate.check import AVAILABLE
from scrubber.mandate.never_block import machine_addresses, never_block
from scrubber.mandate.prefixes import compile_prefixes
from scrubber.mandate.schema import Mandate, Pattern, Rule, Rung, When

DEBT_NS_MAX = 600_000_000_000  # nobody pays for more than ten minutes, however large one answer was


class Source(msgspec.Struct, frozen=True):
    """What an image was made of."""

    gateway: Gateway
    mandates: tuple[Mandate, ...]
    area_ids: dict[str, int]


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


def assign_area_ids(gateway: Gateway, previous: Mapping[str, int]) -> dict[str, int]:
    """An index for each area, kept for the gateway's life: counters, states and blocks speak of areas by it.

    Areas that went keep theirs, so that nothing of theirs passes to another. OperatorError when all are used up.
    """
    ids = dict(previous)
    free = (i for i in range(AREAS_MAX) if i not in set(previous.values()))
    for area in gateway.areas:
        if area.name not in ids:
            index = next(free, None)
            if index is None:
                hint = "stop and start the gateway: names of areas that are gone are forgotten then"
                raise OperatorError(f"more than {AREAS_MAX} areas since the gateway started", hint=hint)
            ids[area.name] = index
    return ids


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
    now: datetime.datetime | None = None,
    mono_ns: int | None = None,
    machine: Iterable[str] | None = None,
) -> CompiledPolicy:
    """The images of a checked gateway and its checked mandates.

    `now` and `mono_ns` are one moment on both clocks (default: this one); `machine`: what `machine_addresses` says.
    """
    moment = now or datetime.datetime.now(datetime.UTC)
    clock = Clock(moment, time.monotonic_ns() if mono_ns is None else mono_ns)
    compiler = _Compiler(gateway, mandates, area_ids, clock)
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
    return Restored(source.gateway, source.mandates, source.area_ids, generation)


@dataclass(frozen=True)
class Clock:
    """One moment on the wall's clock and on the monotonic one."""

    now: datetime.datetime
    mono_ns: int

    def mono_of(self, wall: datetime.datetime) -> int:
        """The monotonic time of a wall time, clamped to what 64 bits hold."""
        ahead_ns = (wall - self.now) // datetime.timedelta(microseconds=1) * 1000
        return max(0, min(self.mono_ns + ahead_ns, layout.U64_MAX))


class PrefixSets:
    """Sets of prefixes, each once however often it is named. Index 0 of the image means none."""

    def __init__(self) -> None:
        self.sets: dict[tuple[str, ...], int] = {}

    def add(self, prefixes: Iterable[str]) -> int:
        """Index + 1 of the set; 0 where it is empty."""
        key = tuple(sorted(set(prefixes)))
        return self.sets.setdefault(key, len(self.sets)) + 1 if key else 0

    def images(self) -> list[bytes]:
        return [compile_prefixes(dict.fromkeys(key, 1), index) for key, index in self.sets.items()]


@dataclass
class Image:
    """Sections as they grow."""

    bytes_of: dict[str, bytearray] = field(default_factory=lambda: {name: bytearray() for name in layout.SECTIONS})
    counts: dict[str, int] = field(default_factory=dict)
    texts: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def add(self, section: str, data: bytes) -> int:
        """Append one entry; its index."""
        self.bytes_of[section] += data
        index = self.counts.get(section, 0)
        self.counts[section] = index + 1
        return index

    def span(self, section: str, entries: Iterable[bytes]) -> tuple[int, int]:
        """Append entries side by side; (index of the first, how many)."""
        first = self.counts.get(section, 0)
        for entry in entries:
            self.add(section, entry)
        return first, self.counts.get(section, 0) - first

    def text(self, value: str) -> tuple[int, int]:
        """Where a text lies, (offset, bytes); each text once."""
        data = value.encode()
        if data not in self.texts:
            self.texts[data] = (len(self.bytes_of["text"]), len(data))
            self.bytes_of["text"] += data
        return self.texts[data]

    def finish(self, generation: int, head: tuple[int, ...]) -> bytes:
        body = bytearray()
        places: list[int] = []
        for name in layout.SECTIONS:
            data = self.bytes_of[name]
            count = len(data) if name in ("text", "source") else self.counts.get(name, 0)
            places += (layout.HEADER.size + len(body), count)
            body += data
            body += bytes(-len(body) % 8)
        total = layout.HEADER.size + len(body)
        digest = hashlib.sha256(body).digest()
        start = (layout.MAGIC, layout.LAYOUT_VERSION, layout.HEADER.size, total, generation, digest)
        return layout.HEADER.pack(*start, *places, *head) + bytes(body)


@dataclass(frozen=True)
class Bounds:
    """What no block may exceed."""

    block_ttl_max_ns: int
    blocks_max: int
    clients_share_max_ppm: int


def area_bounds(name: str, mandates: Sequence[Mandate]) -> Bounds:
    """The tightest of all mandates that may block in an area; nothing at all where none may."""
    found = [m.proportion for m in mandates if name in m.head.areas and "block" in m.head.powers]
    return Bounds(
        min((p.block_ttl_max_ns for p in found), default=0),
        min((p.blocks_max for p in found), default=0),
        min((p.clients_share_max_ppm for p in found), default=0),
    )


def mandate_bounds(mandate: Mandate, mandates: Sequence[Mandate]) -> Bounds:
    """For a block under `mandate`, which binds all its areas: the tightest of these."""
    every = [area_bounds(name, mandates) for name in mandate.head.areas]
    return Bounds(
        min(b.block_ttl_max_ns for b in every),
        min(b.blocks_max for b in every),
        min(b.clients_share_max_ppm for b in every),
    )


def asked_at_accept(rule: Rule) -> bool:
    """Whether a rule on connections can be asked before any byte was read: nothing but the address matters to it."""
    only_client = msgspec.structs.replace(rule.when, client=()) == When()
    in_time = rule.limit is not None and rule.limit.unit == "connections"
    return in_time and only_client and set(rule.per) <= {"client", "prefix"}


class _Compiler:
    """Writes all sections of one image."""

    def __init__(
        self, gateway: Gateway, mandates: Sequence[Mandate], area_ids: Mapping[str, int], clock: Clock
    ) -> None:
        self.gateway, self.mandates, self.area_ids, self.clock = gateway, mandates, area_ids, clock
        self.image, self.prefixes = Image(), PrefixSets()
        self.listed: list[tuple[int, Mandate, Rule]] = []

    def compile(self, generation: int, machine: Iterable[str]) -> CompiledPolicy:
        gateway, limits = self.gateway, self.gateway.limits
        never = self.prefixes.add(never_block(gateway, self.mandates, machine))
        for number, mandate in enumerate(self.mandates):
            for rule in mandate.rules:
                self.listed.append((self.image.add("rules", self._rule(number, mandate, rule)), mandate, rule))
        for area in gateway.areas:
            self.image.add("areas", self._area(area))
        self._hosts()
        for index, listener in enumerate(gateway.listeners):
            self.image.add("listeners", self._listener(index, listener))
        self.image.bytes_of["source"] += msgspec.json.encode(Source(gateway, tuple(self.mandates), dict(self.area_ids)))
        head = (
            len(self.prefixes.sets),
            int(gateway.enforce),
            _per_worker(limits.connections_max, gateway.workers),
            limits.connections_client_max,
            limits.tarpit_max // gateway.workers,
            next((i for i, a in enumerate(gateway.areas) if a.default), layout.NONE),
            never,
        )
        names = [f"{mandate.id}/{rule.name}" for _, mandate, rule in self.listed]
        return CompiledPolicy(self.image.finish(generation, head), self.prefixes.images(), names)

    def _rules_of_area(self, name: str, *, connections: bool) -> tuple[int, int]:
        """Span of an area's rules: those charged with a connection's first request, or all others."""
        found = [
            index
            for index, mandate, rule in self.listed
            if name in mandate.head.areas
            and (rule.limit is not None and rule.limit.unit == "connections") == connections
        ]
        return self.image.span("area_rules", (layout.AREA_RULE.pack(i) for i in found))

    def _rules_of_listener(self, listener: Listener) -> tuple[int, int]:
        """Span of the rules asked at accept: every area reachable here has to be the mandate's."""
        found = [
            index
            for index, mandate, rule in self.listed
            if asked_at_accept(rule) and set(listener.areas) <= set(mandate.head.areas)
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
            *_mask(self.area_ids[name] for name in mandate.head.areas),
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
        last = len(when.fingerprint) - 1
        for i, fingerprint in enumerate(when.fingerprint):
            out.append(self._condition("fingerprint", arg=int(fingerprint, 16), any_next=i < last))
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

    def _hosts(self) -> None:
        named = [(h.removeprefix("*"), i) for i, area in enumerate(self.gateway.areas) for h in area.hosts]
        for name, index in sorted(named, key=lambda n: (len(n[0]), n[0])):
            self.image.add("hosts", layout.HOST.pack(*self.image.text(name), index, 0))

    def _area(self, area: Area) -> bytes:
        limits, workers = area.limits, self.gateway.workers
        bounds = area_bounds(area.name, self.mandates)
        return layout.AREA.pack(
            self.area_ids[area.name],
            layout.AREA_RATELIMIT_FIELDS * area.ratelimit_fields | layout.AREA_HOST_KEEP * area.keep_host,
            *self.image.text(area.name),
            *self._rules_of_area(area.name, connections=False),
            *self._rules_of_area(area.name, connections=True),
            *self.image.span("origins", (self._origin(origin) for origin in area.origins)),
            limits.line_bytes_max,
            limits.head_bytes_max,
            limits.headers_max,
            layout.ACCOUNTS[area.account.kind],
            *self.image.text(area.account.name),
            limits.body_bytes_max,
            limits.head_timeout_ns,
            limits.idle_timeout_ns,
            limits.connect_timeout_ns,
            limits.read_timeout_ns,
            limits.write_timeout_ns,
            limits.body_grace_ns,
            limits.body_bytes_per_s_min,
            limits.tarpit_time_ns,
            _per_worker(limits.origin_connections_max, workers),
            limits.origin_wait_max // workers,
            limits.origin_wait_ns,
            limits.origin_idle_ns,
            bounds.clients_share_max_ppm,
            bounds.blocks_max,
            bounds.block_ttl_max_ns,
        )

    def _origin(self, origin: Origin) -> bytes:
        endpoint = origin.address
        family, sockaddr = sockaddr_of(endpoint)
        share = _per_worker(origin.connections_max, self.gateway.workers) if origin.connections_max else 0
        host = self.image.text(origin.host or ("localhost" if endpoint.family == "unix" else str(endpoint)))
        return layout.ORIGIN.pack(self.image.counts.get("origins", 0), family, len(sockaddr), share, sockaddr, *host)

    def _listener(self, index: int, listener: Listener) -> bytes:
        named = {area.name: i for i, area in enumerate(self.gateway.areas)}
        return layout.LISTENER.pack(
            index,
            self.prefixes.add(listener.trusted_proxies),
            named.get(listener.default, layout.NONE),
            listener.address.port,
            *_mask(self.area_ids[name] for name in listener.areas),
            *self._rules_of_listener(listener),
            0,
        )


def _mask(indexes: Iterable[int]) -> tuple[int, ...]:
    words = [0] * layout.AREA_WORDS
    for index in indexes:
        words[index >> 6] |= 1 << (index & 63)
    return tuple(words)


def _per_worker(whole: int, workers: int) -> int:
    return max(1, whole // workers)


def sockaddr_of(endpoint: Endpoint) -> tuple[int, bytes]:
    """(AF_*, struct sockaddr_in, sockaddr_in6 or sockaddr_un) as Linux has them."""
    if endpoint.family == "unix":
        return int(socket.AF_UNIX), struct.pack("=H", socket.AF_UNIX) + endpoint.address.encode() + b"\0"
    if endpoint.family == "inet":
        packed = socket.inet_pton(socket.AF_INET, endpoint.address)
        return int(socket.AF_INET), struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", endpoint.port, packed)
    packed = socket.inet_pton(socket.AF_INET6, endpoint.address)
    rest = struct.pack("!HI16sI", endpoint.port, 0, packed, 0)
    return int(socket.AF_INET6), struct.pack("=H", socket.AF_INET6) + rest

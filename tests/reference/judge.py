"""The judge, written as docs/mandate.md has it: from the files' own structs, with dicts, and no care for speed.

Shares nothing with the core but the limiter's and the ladder's references. Keys are tuples, tables never fill up.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from scrubber.config.gateway import Gateway, read_gateway
from scrubber.config.listener import Listener
from scrubber.config.walk import Report
from scrubber.mandate.schema import HeaderTest, Mandate, Pattern, Rule, Rung, When
from tests.reference.ladder import Ladder, Step
from tests.reference.limiter import Answer, Limiter, Rate

S = 1_000_000_000
VERDICTS = ("PASS", "THROTTLE", "CHALLENGE", "TARPIT", "DENY", "DROP")
VERDICT_OF = {
    "observe": 0,
    "throttle": 1,
    "challenge": 0,
    "tarpit": 3,
    "deny": 4,
    "drop": 5,
    "block": 5,
    "blackhole": 0,
}
STANDING = ("tarpit", "deny", "drop")
CHARGED = ("bytes", "origin_s", "concurrent")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@functools.cache
def gateway_of(text: str) -> Gateway:
    """The gateway of a file's text."""
    report = Report("text")
    gateway = read_gateway(tomllib.loads(text), "/gateway.toml", report)
    assert report.ok, report.problems
    return gateway


def area_of(gateway: Gateway, listener: int, host: str) -> int:
    """The place of the area that a Host names at a listener; -1: none."""
    reached = gateway.listeners[listener].areas
    name = host.lower().removesuffix(".")
    best, length = -1, -1
    for place, area in enumerate(gateway.areas):
        for known in area.hosts:
            suffix = known.removeprefix("*")
            fits = (
                name == known
                if suffix == known
                else name.endswith(suffix) and not name.startswith(".") and name != suffix
            )
            weight = 1000 if suffix == known else len(suffix)
            if fits and area.name in reached and weight > length:
                best, length = place, weight
    if best >= 0:
        return best
    named = gateway.listeners[listener].default or next((a.name for a in gateway.areas if a.default), "")
    return next((i for i, a in enumerate(gateway.areas) if a.name == named and named in reached), -1)


def around(address: Address, v4: int, v6: int) -> Network:
    """The prefix of that length around an address."""
    if isinstance(address, ipaddress.IPv4Address):
        return ipaddress.IPv4Network((int(address), v4), strict=False)
    return ipaddress.IPv6Network((int(address), v6), strict=False)


def client_of(address: Address) -> Address:
    """Itself, or the first address of its /64."""
    return around(address, 32, 64).network_address


def prefix_of(address: Address) -> Network:
    """Its /24 or /48."""
    return around(address, 24, 48)


@dataclass(frozen=True)
class Request:
    """One request as its facts; account "" and fingerprint 0: none. Names of headers in lower case."""

    area: str
    client: Address
    proof: str = "SOCKET"
    method: str = "GET"
    path: str = "/"
    query: str = ""
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    fingerprint: int = 0
    account: str = ""
    first: bool = False


def matches(pattern: Pattern, text: str) -> bool:
    """Whether a text is what a pattern describes."""
    return {
        "exact": text == pattern.text,
        "prefix": text.startswith(pattern.text),
        "suffix": text.endswith(pattern.text),
        "contains": pattern.text in text,
    }[pattern.match]


def header_holds(name: str, test: HeaderTest, headers: tuple[tuple[str, str], ...]) -> bool:
    values = [value for known, value in headers if known == name.lower()]
    if not test.patterns:
        return bool(values) == test.present
    return any(matches(pattern, value) for pattern in test.patterns for value in values)


def within(address: Address, prefixes: tuple[str, ...]) -> bool:
    return any(address in ipaddress.ip_network(p) for p in prefixes)


def holds(when: When, request: Request, *, known: bool, rush: bool) -> bool:
    """Every condition that is given; of a list, one."""
    method = (
        request.method if request.method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH") else "other"
    )
    tests = [
        when.link_load_ppm is None,
        not when.method or method in when.method,
        not when.path or any(matches(p, request.path) for p in when.path),
        not when.host or any(matches(p, request.host.lower()) for p in when.host),
        not when.query or any(matches(p, request.query) for p in when.query),
        not when.client or within(request.client, when.client),
        not when.fingerprint or f"{request.fingerprint:016x}" in when.fingerprint,
        when.known is None or when.known == known,
        when.account is None or when.account == bool(request.account),
        when.rush is None or when.rush == rush,
        *(header_holds(name, test, request.headers) for name, test in when.header.items()),
    ]
    return all(tests)


@dataclass
class Client:
    """What is known of a client in an area."""

    first_ns: int
    last_ns: int
    good: int = 0
    bad: int = 0
    known: bool = False
    lost: bool = False
    fingerprint: int = 0
    faces: list[list[Any]] = field(default_factory=lambda: [[None, 0], [None, 0], [None, 0]])

    def seen_with(self, face: Any) -> None:
        """A face that has no place takes that of the weakest, unless even that one is healthy."""
        place = next((p for p in self.faces if p[0] == face), None)
        if place is None:
            place = min(self.faces, key=lambda p: p[1])
            if place[1] >= 8:
                return
            place[:] = [face, 0]
        place[1] += 1


@dataclass
class AreaLife:
    """Rush and known clients of one area."""

    rush_since_ns: int = 0
    rush_last_ns: int = 0
    clients: dict[Address, Client] = field(default_factory=dict)

    def rush(self, now_ns: int) -> bool:
        return self.rush_since_ns != 0 and now_ns - self.rush_last_ns < 30 * S

    def shed(self, now_ns: int) -> None:
        if not self.rush(now_ns):
            self.rush_since_ns = now_ns
        self.rush_last_ns = now_ns

    def healthy(self) -> int:
        return sum(c.known or c.lost for c in self.clients.values())

    def fingerprint_clients(self, fingerprint: int) -> int:
        return sum(c.known and c.fingerprint == fingerprint for c in self.clients.values())

    def shared(self, client: Address) -> bool:
        seen = self.clients.get(client)
        return seen is not None and all(count >= 8 for _, count in seen.faces)

    def note(self, client: Address, face: Any, fingerprint: int, good: bool, now_ns: int) -> None:
        c = self.clients.setdefault(client, Client(now_ns, now_ns))
        rush = self.rush(now_ns)
        if not rush and not c.known and self.rush_since_ns and self.rush_since_ns <= c.first_ns <= self.rush_last_ns:
            c.first_ns, c.good, c.bad = now_ns, 0, 0
        c.good += good
        c.bad += not good
        if c.good >= 1024 or c.bad >= 1024:
            c.good, c.bad = c.good // 2, c.bad // 2
        if c.bad * 10 > c.good:
            if c.known:
                c.known, c.lost, c.first_ns, c.good, c.bad, c.fingerprint = False, True, now_ns, 0, 0, 0
        elif good and not c.known and not rush and c.good >= 8 and now_ns - c.first_ns >= 3 * S:
            c.known, c.lost = True, False
        if good and face:
            c.seen_with(face)
        if good and c.known and not c.fingerprint:
            c.fingerprint = fingerprint
        c.last_ns = now_ns


@dataclass
class Block:
    """One entry of the block table."""

    areas: frozenset[str]
    first_ns: int
    expires_ns: int
    rule: str


@dataclass
class Judged:
    """What is said of a request, and what is owed when it ends."""

    verdict: int = 0
    decided: int = 0
    rule: str = ""
    rung: int = -1
    measure: str = "observe"
    known: bool = False
    rush: bool = False  # when the request came, whatever it does itself
    blocked: bool = False
    shed: bool = False
    crowd: bool = False
    retry_ns: int = 0
    charges: list[tuple[Any, Rule]] = field(default_factory=list)
    request: Request | None = None


class Judge:
    """All state of one gateway."""

    def __init__(
        self,
        gateway: Gateway,
        mandates: tuple[Mandate, ...],
        never: tuple[str, ...],
        now: datetime.datetime,
        mono_ns: int,
    ) -> None:
        self.gateway, self.mandates = gateway, mandates
        self.never = [ipaddress.ip_network(n) for n in never]
        self.now, self.mono_ns = now, mono_ns
        self.limiter, self.ladder = Limiter(), Ladder()
        self.inflight: Counter[Any] = Counter()
        self.lives = {area.name: AreaLife() for area in gateway.areas}
        self.blocks: dict[Any, list[Block]] = {}
        self.made = 0  # blocks ever made: between two sweeps the core counts those that ran out, too
        self.known_blocked: Counter[str] = Counter()  # by area, the same way

    # ── accept and request ──

    def connection(self, listener: Listener, peer: Address, now_ns: int) -> Judged:
        """accept: only what an address alone can tell."""
        out = Judged()
        if within(peer, listener.trusted_proxies):
            return out
        covered: set[str] = set()
        for block in self._met(peer, 0, now_ns):
            covered |= block.areas
        if set(listener.areas) <= covered:
            out.blocked, out.decided, out.measure = True, 5, "block"
        else:
            request = Request(area="", client=peer)
            for mandate, rule in self._rules_at_accept(listener):
                self._ask(mandate, rule, request, out, now_ns)
            out.decided = 5 if out.decided else 0
        return self._finish(out, peer, "SOCKET")

    def request(self, listener: Listener, request: Request, now_ns: int) -> Judged:
        """request: the block table, then every rule of the area."""
        life = self.lives[request.area]
        seen = life.clients.get(client_of(request.client))
        out = Judged(known=seen is not None and seen.known, rush=life.rush(now_ns), request=request)
        met = [b for b in self._met(request.client, request.fingerprint, now_ns) if request.area in b.areas]
        if met:
            out.blocked, out.decided, out.measure, out.rule = True, 5, "block", met[0].rule
            spares = not self._covered(listener, request, now_ns)
            return self._finish(out, request.client, request.proof, spares=spares)
        asked = self._rules_at_accept(listener) if request.proof != "CHAIN" else []
        mine = [(m, r) for m in self.mandates if request.area in m.head.areas for r in m.rules]
        about = [(m, r) for m, r in mine if r.limit is not None and r.limit.unit == "connections"]
        for mandate, rule in about if request.first else []:
            if (mandate, rule) not in asked:
                self._ask(mandate, rule, request, out, now_ns)
        for mandate, rule in mine:
            if (mandate, rule) not in about:
                self._ask(mandate, rule, request, out, now_ns)
        binds = next((m.head.areas for m in self.mandates if out.rule.startswith(f"{m.id}/")), ())
        spares = out.measure == "block" and not set(listener.areas) <= set(binds)
        return self._finish(out, request.client, request.proof, spares=spares)

    def done(self, out: Judged, now_ns: int, nbytes: int, origin_ns: int, good: bool) -> None:
        """account; nbytes: heads and bodies, both ways."""
        for key, rule in out.charges:
            limit = rule.limit
            assert limit is not None
            if limit.unit == "concurrent":
                self.inflight[key] -= 1
            else:
                rate = Rate(limit.count, limit.period_ns, limit.burst)
                debt = min(limit.period_ns, 600 * S)
                self.limiter.charge(key, rate, nbytes if limit.unit == "bytes" else origin_ns, debt, now_ns)
        request = out.request
        if request is None or out.crowd or out.blocked:
            return
        face = request.account or request.fingerprint
        healthy = good and not out.rule
        self.lives[request.area].note(client_of(request.client), face, request.fingerprint, healthy, now_ns)

    def _finish(self, out: Judged, client: Address, proof: str, *, spares: bool = False) -> Judged:
        if out.decided == 5 and (proof == "CHAIN" or spares):
            out.decided = 4
        if out.decided and any(client in n for n in self.never):
            out.decided, out.blocked, out.shed = 0, False, False
        out.verdict = out.decided if self.gateway.enforce else 0
        return out

    # ── rules ──

    def _rules_at_accept(self, listener: Listener) -> list[tuple[Mandate, Rule]]:
        return [
            (m, r)
            for m in self.mandates
            for r in m.rules
            if set(listener.areas) <= set(m.head.areas)
            and r.limit is not None
            and r.limit.unit == "connections"
            and set(r.per) <= {"client", "prefix"}
            and r.when in (When(), When(client=r.when.client))
        ]

    def _key(self, mandate: Mandate, rule: Rule, request: Request) -> Any:
        """None: the request has no such key."""
        values = {
            "client": client_of(request.client),
            "prefix": prefix_of(request.client),
            "fingerprint": request.fingerprint,
            "account": request.account,
            "path": request.path,
            "host": request.host.lower(),
            "area": request.area,
        }
        parts = tuple(values[k] for k in rule.per)
        missing = any(k in ("fingerprint", "account") and not v for k, v in zip(rule.per, parts, strict=True))
        return None if missing else (mandate.id, rule.name, *parts)

    def _expired(self, mandate: Mandate, now_ns: int) -> bool:
        return now_ns >= self._end_ns(mandate)

    def _end_ns(self, mandate: Mandate) -> int:
        return self.mono_ns + (mandate.head.expires - self.now) // datetime.timedelta(microseconds=1) * 1000

    def _available(self, mandate: Mandate, rung: Rung, now_ns: int) -> bool:
        if self._expired(mandate, now_ns):
            return rung.measure == "observe" or (rung.measure == "throttle" and mandate.head.on_expiry == "limits")
        return rung.measure not in ("challenge", "blackhole")

    def _ask(self, mandate: Mandate, rule: Rule, request: Request, out: Judged, now_ns: int) -> None:
        life = self.lives.get(request.area)
        key = self._key(mandate, rule, request) if rule.per else None
        if key is None or not holds(rule.when, request, known=out.known, rush=out.rush):
            return
        area_wide = not rule.names_source
        over, answer = self._limit(
            rule, key, rule.newcomer_share_ppm if area_wide and not out.known else 10**6, out, now_ns
        )
        rungs = [(rung.hold_ns or rule.climb_ns, rung) for rung in rule.then]
        available = sum(1 << i for i, (_, rung) in enumerate(rungs) if self._available(mandate, rung, now_ns))
        walk = self.ladder.over if over else self.ladder.under
        if not over and area_wide:
            return
        step = walk(key, [hold for hold, _ in rungs], available, rule.calm_ns, now_ns)
        measure = rungs[step.rung][1].measure if step.rung >= 0 else "observe"
        name = f"{mandate.id}/{rule.name}"
        if not over:
            standing = measure in STANDING or (measure == "block" and not self.gateway.enforce)
            if step.rung >= 0 and standing:
                self._take(out, answer, name=name, rung=step.rung, measure=measure, verdict=VERDICT_OF[measure])
            return
        verdict = VERDICT_OF[measure]
        if measure == "block":
            verdict, answer = self._over_block(mandate, rule, request, key=key, step=step, answer=answer, now_ns=now_ns)
            measure = {5: "block", 1: "throttle", 0: "observe"}[verdict]
        if area_wide:
            out.crowd = True
            if life is not None:
                life.shed(now_ns)
            if verdict:
                out.shed = True
            if out.known and verdict > 1:
                verdict, measure = 1, "throttle"
        self._take(out, answer, name=name, rung=step.rung, measure=measure, verdict=verdict)

    @staticmethod
    def _take(out: Judged, answer: Answer, *, name: str, rung: int, measure: str, verdict: int) -> None:
        if out.rule and verdict <= out.decided:
            if verdict == out.decided == 1:
                out.retry_ns = max(out.retry_ns, answer.retry_ns)
            return
        out.rule, out.rung, out.measure, out.decided, out.retry_ns = name, rung, measure, verdict, answer.retry_ns

    def _limit(self, rule: Rule, key: Any, share: int, out: Judged, now_ns: int) -> tuple[bool, Answer]:
        limit = rule.limit
        if limit is None:
            return True, Answer(True, 0, rule.calm_ns, 0)
        rate = Rate(limit.count, limit.period_ns, limit.burst)
        if limit.unit == "concurrent":
            most = limit.burst if share == 10**6 else max(1, limit.burst * share // 10**6)
            if self.inflight[key] + 1 > most:
                return True, Answer(True, 0, S, 0)
            self.inflight[key] += 1
            out.charges.append((key, rule))
            return False, Answer(False, 0, S, 0)
        if limit.unit in CHARGED:
            out.charges.append((key, rule))
        answer = self.limiter.admit(key, rate, 0 if limit.unit in CHARGED else 1, now_ns, share)  # type: ignore[arg-type]
        return answer.limited, answer

    # ── blocks ──

    def _met(self, client: Address, fingerprint: int, now_ns: int) -> list[Block]:
        """Blocks on a source, the narrowest first."""
        sources: list[Any] = [client_of(client), prefix_of(client), ("fingerprint", fingerprint)]
        return [b for source in sources for b in self.blocks.get(source, []) if b.expires_ns > now_ns]

    def _covered(self, listener: Listener, request: Request, now_ns: int) -> bool:
        """Every area of the listener is blocked for this address, or for this fingerprint."""
        by_address = self._met(request.client, 0, now_ns)
        held = self.blocks.get(("fingerprint", request.fingerprint), [])
        by_fingerprint = [b for b in held if b.expires_ns > now_ns]
        return any(set(listener.areas) <= {a for b in met for a in b.areas} for met in (by_address, by_fingerprint))

    def _over_block(
        self, mandate: Mandate, rule: Rule, request: Request, *, key: Any, step: Step, answer: Answer, now_ns: int
    ) -> tuple[int, Answer]:
        loud = step.entered and step.skipped < 0
        life = self.lives.get(request.area)
        shared = life is not None and life.shared(client_of(request.client))
        if shared and not loud:
            outcome = "shared"
        else:
            admitted = not self.limiter.admit(("retry", key), Rate(1, 5 * S, 1), 1, now_ns).limited  # type: ignore[arg-type]
            if loud or admitted:
                outcome = self._block(mandate, rule, request, step.rung, now_ns)
            else:
                outcome = "refused" if self.gateway.enforce else "made"
        if outcome == "made":
            return 5, answer
        if outcome == "shared" and rule.limit is not None and rule.limit.unit == "requests" and life is not None:
            common = life.fingerprint_clients(request.fingerprint) > 0
            rate = Rate(rule.limit.count, rule.limit.period_ns, rule.limit.burst)
            pair = ("pair", key, request.fingerprint if common else 0)
            answer = self.limiter.admit(pair, rate, 1, now_ns)  # type: ignore[arg-type]
            return (1 if answer.limited else 0), answer
        return 1, answer

    def _bounds(self, mandate: Mandate) -> tuple[int, int, int]:
        found = [
            m.proportion
            for m in self.mandates
            if "block" in m.head.powers and set(m.head.areas) & set(mandate.head.areas)
        ]
        return (
            min(p.block_ttl_max_ns for p in found),
            min(p.blocks_max for p in found),
            min(p.clients_share_max_ppm for p in found),
        )

    def _block(self, mandate: Mandate, rule: Rule, request: Request, rung: int, now_ns: int) -> str:
        ttl_max, blocks_max, share = self._bounds(mandate)
        areas = frozenset(mandate.head.areas)
        client = client_of(request.client)
        source: Any = client if "client" in rule.per else prefix_of(request.client)
        clients = [client] if "client" in rule.per else [client_of(a) for a in self._every(request.client)]
        if rule.per == ("fingerprint",):
            source, clients = ("fingerprint", request.fingerprint), []
        expires = min(now_ns + min(rule.then[rung].ttl_ns, ttl_max), self._end_ns(mandate))
        if expires <= now_ns or self.made >= blocks_max:
            return "refused"
        for name in (a.name for a in self.gateway.areas if a.name in areas):
            reason = self._disproportionate(name, rule, request, clients, share)
            if reason:
                return reason
        if any(self._touches(n, source, request.client) for n in self.never):
            return "refused"
        if self.gateway.enforce:
            held = self.blocks.setdefault(source, [])
            same = next((b for b in held if b.areas == areas and b.expires_ns > now_ns), None)
            if same is not None:
                same.expires_ns = max(same.expires_ns, min(expires, same.first_ns + ttl_max))
            else:
                held.append(Block(areas, now_ns, expires, f"{mandate.id}/{rule.name}"))
                self.made += 1
                for name in areas:
                    self.known_blocked[name] += self._healthy_among(self.lives[name], clients)
        return "made"

    @staticmethod
    def _every(address: Address) -> list[Address]:
        """The addresses of a /24; of a /48 nobody looks through all /64s."""
        return list(prefix_of(address)) if address.version == 4 else [address]

    @staticmethod
    def _healthy_among(life: AreaLife, clients: list[Address]) -> int:
        return sum(c in life.clients and (life.clients[c].known or life.clients[c].lost) for c in clients)

    def _disproportionate(self, area: str, rule: Rule, request: Request, clients: list[Address], share: int) -> str:
        life = self.lives[area]
        most = life.healthy() * share // 10**6
        if rule.per == ("fingerprint",):
            many = life.fingerprint_clients(request.fingerprint)
            too_common = many > 0 and many * 1000 >= life.healthy()
            return "refused" if too_common or (many and self.known_blocked[area] + many > most) else ""
        if any(life.shared(c) for c in clients):
            return "shared"
        hit = self._healthy_among(life, clients)
        return "refused" if hit and self.known_blocked[area] + hit > most else ""

    @staticmethod
    def _touches(never: Network, source: Any, client: Address) -> bool:
        if isinstance(source, tuple):
            return client in never
        wanted = source if isinstance(source, Network) else around(source, 32, 64)
        return never.version == wanted.version and never.overlaps(wanted)  # type: ignore[arg-type]

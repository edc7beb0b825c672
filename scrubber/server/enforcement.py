"""The supervisor's side of the enforcer: tells it what is wanted, hears what is in force.

Owns: when the block table is looked at, which revision the enforcer has, what status and metrics say of it. Invariants:
whatever was lost on the way, within COMPARE_S it is said again; nothing here waits for the enforcer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

from scrubber import _native
from scrubber.control import acts
from scrubber.control.blocks import Source, parse_source
from scrubber.control.cover import Cover
from scrubber.control.policy import PolicyInForce
from scrubber.control.shut import Row, Shut, doors_of, terms_of
from scrubber.control.tend import Tender
from scrubber.enforce.backend import Door, Drop
from scrubber.enforce.envelope import Terms
from scrubber.enforce.messages import (
    Announcing,
    Counted,
    Gone,
    Hello,
    NotAMessage,
    Peer,
    Resync,
    Ruled,
    Standing,
    allowed_parts,
    parts,
)
from scrubber.enforce.net import Net, is_host, net_of, net_text
from scrubber.mandate.bounds import mandate_bounds
from scrubber.mandate.compile import rule_id
from scrubber.mandate.schema import Mandate
from scrubber.server.aggregation import Aggregation
from scrubber.server.announcements import Announcements
from scrubber.server.journal import Journal
from scrubber.server.plan import ListenerPlan
from scrubber.units import NS_PER_S, format_duration

LOOK_S = 0.02  # from a block to here; the way through the enforcer takes less
COMPARE_S = 30.0
PAGE = 4096
REASONS_MAX = 10_000
SHOWN = 20  # of the heaviest, in the status
MESSAGES_TURN = 16  # a hundred come at once where many send; others have their turn between


class Enforcement:
    """Call `run` as a task, `use` with each policy, `meet` with each enforcer."""

    def __init__(
        self,
        memory: _native.Memory,
        journal: Journal,
        logger: logging.Logger,
        *,
        quiet_ns: int,
        lift: Callable[[str, str], None],
    ) -> None:
        """`quiet_ns`: see Tender. `lift`: is told of a source whose blocks we took out of the table."""
        self._memory, self._journal, self._logger = memory, journal, logger
        self._tender, self._lift = Tender(quiet_ns), lift
        self._compare_s = min(COMPARE_S, max(quiet_ns / 2 / NS_PER_S, LOOK_S)) if quiet_ns else COMPARE_S
        self._loop = asyncio.get_running_loop()
        self._peer: Peer | None = None
        self._shut = Shut([])
        self._cover = Cover()
        self._aggregation = Aggregation(memory, journal)
        self._policy: PolicyInForce | None = None
        self._listeners: list[ListenerPlan] = []
        self._mandates: dict[int, Mandate] = {}  # by clause
        self._by_hand: set[int] = set()  # clauses of these
        self._terms = Terms()
        self._sent: dict[Net, Drop] = {}
        self._lifted: list[Net] = []
        self._epoch = -1
        self._revision = 0
        self._whole = True  # everything is to be said
        self._compared_at = 0.0
        self._allowed: tuple[Terms, list[Door]] | None = None  # as the enforcer was told
        self.backends: list[tuple[str, str]] = []
        self.in_force: dict[str, int] = {}
        self.waiting = self.healed = 0
        self.refused = 0
        self._reasons: dict[Net, str] = {}  # that are on the record
        self.counted: dict[Net, tuple[int, int]] = {}
        self.packets = self.bytes = 0  # dropped since this supervisor began
        self.announcements: Announcements | None = None  # where there is an upstream

    # ── what is wanted ──

    def use(self, policy: PolicyInForce, listeners: list[ListenerPlan]) -> None:
        """From now on its mandates, doors and areas."""
        self._policy, self._listeners = policy, listeners
        self._mandates = {rule_id(m.id, name): m for m in policy.mandates for name in ("", *(r.name for r in m.rules))}
        self._by_hand = {rule_id(mandate.id, "") for mandate in policy.mandates}
        self._terms = terms_of(policy)
        self._aggregation.use(policy, self._terms)
        self._whole = True
        if self.announcements is not None:
            self.announcements.use(policy, self._terms)

    def lifted(self, kind: str, source: str) -> None:
        """A source's blocks were taken out of the table."""
        if self._peer is not None and kind in ("client", "prefix"):
            self._lifted.append(net_of(source))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._peer is None or self._peer.waits:
                continue
            if self._whole:
                await self._say_all()
            elif self._loop.time() - self._compared_at >= self._compare_s:
                await self._compare_all()
            else:
                self._look()
                if any(not why for _, why in self.backends):
                    self._aggregation.look(self._shut, self._cover)

    def _look(self) -> None:
        """What has changed since the last look, if anything."""
        epoch = self._memory.blocks_epoch()
        again = self._cover.due(time.monotonic_ns())
        if epoch == self._epoch and not self._lifted and not again:
            return
        self._epoch = epoch
        touched, self._lifted = set(self._lifted), []
        for net in touched:
            self._shut.lift(net)
        for rows in self._rows(changed=True):
            touched |= self._shut.take(rows)
        self._aggregation.touched(touched)
        self._say(touched | again)

    def _rows(self, *, changed: bool) -> Iterator[list[Row]]:
        at: int | None = 0
        while at is not None:
            rows, at = _native.blocks_enforced(self._memory, at, PAGE, changed)
            yield rows

    def _say(self, touched: set[Net]) -> None:
        """Of these sources: what is wanted where that is not what was said."""
        now_ns = time.monotonic_ns()
        put, remove = [], []
        for net in touched | self._cover.change(self._shut, touched, now_ns):
            drop = self._drop(net, now_ns)
            if drop is not None and self._sent.get(net) != drop:
                put.append((net, drop.until_ns, drop.doors))
                self._sent[net] = drop
            elif drop is None and self._sent.pop(net, None) is not None:
                remove.append(net)
        if put or remove:
            self._revision += 1
            self._send_all(parts(self._revision, self._revision - 1, put, remove))

    def _drop(self, net: Net, now_ns: int) -> Drop | None:
        """What the kernel is to do with it, which is nothing while it is probed, or a prefix does it."""
        drop = self._shut.drop(net, now_ns)
        if self._cover.covers(net, drop, now_ns) or drop is None:
            self._tender.gone([net])
            self.counted.pop(net, None)
            return None
        self._tender.dropped(net, drop.until_ns, now_ns)
        return None if self._tender.probing(net) else drop

    async def _say_all(self) -> None:
        """To an enforcer that is new, or was left behind; and where the policy is another."""
        peer, policy = self._peer, self._policy
        if policy is None:
            return
        self._whole = False
        bound = {each.key: (each.host, each.port) for each in self._listeners if not each.unix}
        doors, areas = doors_of(policy, bound, self._shut.areas)
        self._shut, _ = await self._read_all(areas)
        self._cover = Cover()  # what it had is of other doors
        self._cover.change(self._shut, self._shut.prefixes(), time.monotonic_ns())
        drops: dict[Net, Drop] = {}
        for nets in _chunks(self._shut.nets()):
            now_ns = time.monotonic_ns()
            drops.update({net: drop for net in nets if (drop := self._drop(net, now_ns)) is not None})
            await asyncio.sleep(0)
        if self._peer is not peer or self._policy is not policy:
            self._whole = True
            return
        self._sent = drops
        self._revision += 1
        if self._allowed != (self._terms, doors):
            self._allowed = (self._terms, doors)
            self._send_all(allowed_parts(self._terms, tuple(doors)))
        self._send_all(parts(self._revision, 0, [(net, *drop) for net, drop in drops.items()], []))
        if self.announcements is not None:
            self.announcements.say_all()

    def tell(self, messages: Iterator[Any]) -> bool:
        """Messages beside those of blocks; False: the enforcer, if any, was not told yet what is allowed."""
        if self._peer is None or self._whole or self._allowed is None:
            return False
        self._send_all(messages)
        return True

    async def _compare_all(self) -> None:
        """What the table has against what was said: blocks that others displaced are gone without a word."""
        peer = self._peer
        shut, hits = await self._read_all(self._shut.areas)
        if self._peer is not peer or self._whole:
            return
        self._shut = shut
        due = self._tender.look(self._cover.with_hosts(hits), time.monotonic_ns())
        for net in due.lift:
            self._let_in(net)
        for nets in _chunks(shut.nets() | self._cover.nets() | set(self._sent)):
            self._say(set(nets))
            await asyncio.sleep(0)

    async def _read_all(self, areas: list[frozenset[int]]) -> tuple[Shut, dict[Net, int]]:
        """The whole table, in steps between which others have their turn. And what the gateway itself refused of those
        that no operator blocked."""
        self._compared_at, self._lifted, self._epoch = self._loop.time(), [], self._memory.blocks_epoch()
        shut = Shut(areas)
        hits: Counter[Net] = Counter()
        asked_for: set[Net] = set()
        for rows in self._rows(changed=False):
            shut.take(rows)
            for net, _, _, rule, count in rows:
                hits[net] += count
                if rule in self._by_hand:
                    asked_for.add(net)
            await asyncio.sleep(0)
        self._aggregation.all_touched(shut, time.monotonic_ns())
        return shut, {net: count for net, count in hits.items() if net not in asked_for and not self._unheard(net)}

    def _unheard(self, net: Net) -> bool:
        """Whether its packets are dropped before they come here."""
        return self.announcements is not None and self.announcements.covers(net)

    # ── looking after them ──

    def _let_in(self, net: Net) -> None:
        """Nothing came of it for long, nor in its probe."""
        source = parse_source(net_text(net))
        if self._memory.block_remove(source.kind, source.text):
            self._shut.lift(net)
            self._tender.gone([net])
            self._lift(source.kind, source.text)
            fields = {"scrubber.source": source.text, "scrubber.source_kind": source.kind}
            self._journal.record(acts.made("unblock", f"unblock {source}: it sends nothing any more", **fields))

    def _extend(self, net: Net, ttl_ns: int) -> None:
        """Its blocks last so long again, as far as their mandates go."""
        source = parse_source(net_text(net))
        for areas, block in self._shut.blocks(net).items():
            mandate = self._mandates.get(block.rule_id)
            if mandate is None or block.rule_id in self._by_hand:
                continue
            bounds = mandate_bounds(mandate, self._policy.mandates if self._policy else ())
            left_ns = int((mandate.head.expires.timestamp() - time.time()) * NS_PER_S)
            wanted_ns = min(ttl_ns, left_ns)
            if wanted_ns <= 0:
                continue
            answer = self._memory.block_put(
                source.kind,
                source.text,
                list(areas),
                wanted_ns,
                bounds.block_ttl_max_ns,
                bounds.blocks_max,
                block.rule_id,
            )
            if answer == "extended":
                self._say_extended(source, mandate, wanted_ns)

    def _say_extended(self, source: Source, mandate: Mandate, ttl_ns: int) -> None:
        # The table cuts it to what the evidence allows.
        for_ = f"{format_duration(max(ttl_ns // NS_PER_S, 1) * NS_PER_S)} at most"
        said = f"extend {source} for {for_} under mandate {mandate.id}: it goes on sending"
        fields = {
            "scrubber.source": source.text,
            "scrubber.source_kind": source.kind,
            "scrubber.measure": "block",
            "scrubber.ttl_s": ttl_ns / NS_PER_S,
        }
        self._journal.record(acts.made("extend", said, **fields))

    # ── the way to the enforcer ──

    def _send_all(self, messages: Iterator[Any]) -> None:
        try:
            for message in messages:
                if self._peer is None or not self._peer.send(message):
                    self._whole = True  # it reads too slowly: all of it, once it has caught up
                    return
            if self._peer is not None and self._peer.waits:
                self._loop.add_writer(self._peer.fileno(), self._writable)
        except Gone:
            self._part()

    def _writable(self) -> None:
        if self._peer is None:
            return
        try:
            self._peer.flush()
        except Gone:
            self._part()
            return
        if not self._peer.waits:
            self._loop.remove_writer(self._peer.fileno())

    # ── the enforcer ──

    def meet(self, fd: int) -> None:
        """Another enforcer, or the first."""
        self._part()
        self._peer = Peer(socket.socket(fileno=fd), enforcer=False)
        self._loop.add_reader(self._peer.fileno(), self._readable)
        self._whole, self._allowed = True, None

    def _part(self) -> None:
        if self._peer is not None:
            self._loop.remove_reader(self._peer.fileno())
            self._loop.remove_writer(self._peer.fileno())
            self._peer.close()
            self._peer = None
            if self.announcements is not None:
                self.announcements.ended()
        self.in_force, self.counted = {}, {}

    def _readable(self) -> None:
        for _ in range(MESSAGES_TURN):
            if self._peer is None:
                return
            try:
                message = self._peer.receive()
            except NotAMessage as why:
                self._logger.error("the enforcer: not a message: %s", why)
                continue
            except Gone:
                self._part()
                return
            if message is None:
                return
            self._hear(message)

    def _hear(self, message: Any) -> None:
        if isinstance(message, Hello):
            self.backends = list(message.backends)
            if self.announcements is not None:
                self.announcements.begun(message.upstream)
        elif isinstance(message, Standing):
            self.in_force, self.waiting, self.healed = message.in_force, message.waiting, message.healed
            for net, why in message.refused:
                self._refused(net, why)
            self.refused += message.refused_more
        elif isinstance(message, Counted):
            self._hear_counts(message)
        elif isinstance(message, Resync):
            self._logger.error("the enforcer asks for everything anew: %s", message.reason)
            self._whole, self._allowed = True, None
        elif isinstance(message, (Announcing, Ruled)) and self.announcements is not None:
            self.announcements.hear(message)

    def _hear_counts(self, message: Counted) -> None:
        now_ns = time.monotonic_ns()
        self._tender.counts_come(message.every_ns)
        for net, packets, count in message.rows:
            before = self.counted.get(net, (0, 0))
            self.counted[net] = (packets, count)
            if self.announcements is not None:
                self.announcements.counted(net, count)
            if message.earlier:
                continue
            # An entry that was made anew counts from 0.
            self.packets += packets - before[0] if packets >= before[0] else packets
            self.bytes += count - before[1] if count >= before[1] else count
            if ttl_ns := self._tender.counted(net, packets, now_ns):
                self._extend(net, ttl_ns)

    def _refused(self, net: Net, why: str) -> None:
        """On the record once for each source and reason."""
        self.refused += 1
        self._sent.pop(net, None)
        self._cover.refused(net)
        if self._reasons.get(net) == why:
            return
        if len(self._reasons) >= REASONS_MAX:
            self._reasons.clear()
        self._reasons[net] = why
        source = net_text(net)
        fields = {"scrubber.source": source, "scrubber.reason": why, "scrubber.source_kind": _kind(net)}
        self._journal.record(acts.made("refuse", f"{source} does not go down into the kernel: {why}", **fields))

    # ── what is said of it ──

    def describe(self) -> dict[str, Any]:
        """For the status document."""
        in_force = [row for row in self.counted.items() if row[0] in self._sent]
        heaviest = sorted(in_force, key=lambda row: -row[1][0])[:SHOWN]
        return {
            "here": self._peer is not None,
            "backends": [{"name": name, "reason": why} for name, why in self.backends],
            "in_force": dict(self.in_force),
            "wanted": len(self._sent),
            "covered": len(self._cover),
            "waiting": self.waiting,
            "healed": self.healed,
            "refused": self.refused,
            "dropped_packets": self.packets,
            "dropped_bytes": self.bytes,
            "heaviest": [
                {"source": net_text(net), "packets": packets, "bytes": count} for net, (packets, count) in heaviest
            ],
            "upstream": self.announcements.describe() if self.announcements is not None else None,
        }


def _chunks(nets: Collection[Net]) -> Iterator[list[Net]]:
    ordered = list(nets)
    return (ordered[at : at + PAGE] for at in range(0, len(ordered), PAGE))


def _kind(net: Net) -> str:
    return "client" if is_host(net) else "prefix"

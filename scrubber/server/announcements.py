"""The supervisor's side of what is announced upstream: what is wanted, who asked for it, and what became of it.

Owns the list of blackholes and FlowSpec rules that are wanted, its copy on disk, and the answers to orders and to rules
on the link's load. Invariants: nothing is wanted without a clause and an end; the envelope is asked here before the
enforcer asks it; whatever was lost on the way, within RETRY_S all of it is said again; nothing here waits for a router.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from scrubber.config.upstream import Upstream
from scrubber.control import acts
from scrubber.control.blackholes import (
    Announced,
    BlackholeOrder,
    FlowOrder,
    Grant,
    WithdrawOrder,
    all_areas,
    allowed,
    areas_at,
    clause_by_hand,
    described,
    flow_meant,
    load_rules,
    net_meant,
)
from scrubber.control.blocks import Refusal
from scrubber.control.link_load import Heaviest, LinkLoad, Pressed, received_bytes
from scrubber.control.policy import PolicyInForce
from scrubber.enforce.envelope import Envelope, Floor, Spans, Terms
from scrubber.enforce.flow import Flow
from scrubber.enforce.messages import Announcing, Ruled, Rules, announce_parts
from scrubber.enforce.net import Net, net_of, net_text
from scrubber.errors import OperatorError, ScrubberError, ValueRefused
from scrubber.mandate.schema import Rule
from scrubber.server import announced_file, secret
from scrubber.server.flowspec import FlowSpec
from scrubber.server.journal import Journal
from scrubber.server.trouble import Trouble
from scrubber.units import NS_PER_S, PPM, format_duration

LOOK_S = 1.0
RETRY_S = 10.0  # what was refused may be allowed by then, and an enforcer may have missed something
ANSWER_S = 3.0
NOTED_MAX = 10_000
NET_DEV = Path("/proc/self/net/dev")

Tell = Callable[[Iterator[Any]], bool]
Key = tuple[str, str]  # kind, target


class Announcements:
    """Call `run` as a task, `use` with each policy, `say_all` when the enforcer knows nothing yet."""

    def __init__(
        self,
        settings: Upstream,
        floor: Floor,
        journal: Journal,
        logger: logging.Logger,
        *,
        directory: str,
        tell: Tell,
    ) -> None:
        """`tell`: hands messages to the enforcer; False: there is none that would understand them now."""
        self._settings, self._protects = settings, [net_text(net) for net in floor.protects]
        self._journal, self._logger, self._directory, self._tell = journal, logger, directory, tell
        self._envelope = Envelope(floor)
        self._wanted: dict[Key, Announced] = {}
        self._states: dict[Key, str] = {}  # "announced", or why not
        self._policy: PolicyInForce | None = None
        self._revision = 0
        self._answers: list[tuple[int, asyncio.Future[None]]] = []  # who waits for one to that revision
        self._flows: list[tuple[Key, Flow]] = []  # as they were said last
        self._in_force: set[Key] = set()
        self._begun: set[Key] = set()  # of an Announcing that is not whole
        self._sources = Spans([])  # of those in force
        self._changed = asyncio.Event()
        self._unsaved = False
        self._said_at = 0.0
        self._trouble = Trouble()
        self.reason: str | None = None  # why nothing can be announced; "": it can; None: no enforcer has said
        self.refused = 0
        self._noted: dict[Key, str] = {}  # refusals that are on the record
        self._heaviest = Heaviest()
        self._load, self._pressed = LinkLoad(settings.link_rate), Pressed()
        flowspec = settings.flowspec
        self._flowspec = FlowSpec(settings, f"{directory}/bgp", logger) if flowspec is not None else None

    # ── what is wanted ──

    def use(self, policy: PolicyInForce, terms: Terms) -> None:
        """From now on its mandates."""
        self._policy = policy
        self._envelope.use(terms)
        self._pressed.keep(clause for clause, _ in load_rules(policy.mandates))
        self._noted.clear()
        self._look_at_clauses(policy)

    @property
    def policy(self) -> PolicyInForce:
        assert self._policy is not None, "use comes first"
        return self._policy

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        await self._bring_back()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK_S)
            self._changed.clear()
            self._expire()
            self._look_at_load()
            if self._unsaved:
                await self._save()
            if loop.time() - self._said_at >= RETRY_S:
                self._heaviest.forget(time.monotonic_ns())
                self.say_all()

    async def finish(self) -> None:
        """Ends ExaBGP, and with its sessions all rules. Blackholes are the enforcer's."""
        if self._flowspec is not None:
            await self._flowspec.end()

    async def blackhole(self, order: BlackholeOrder) -> dict[str, Any]:
        """What was done. OperatorError: not allowed, by mandate or envelope, or not possible."""
        asked = f"blackhole of {order.net}"
        try:
            net, kind = net_meant(order.net, self._protects)
        except ValueRefused as error:
            self._refuse(asked, order.reason, Refusal(error.message, error.hint or error.expected))
        if kind == "source" and self._settings.source_community is None:
            hint = "source_community in [enforcer.upstream], where the provider has one"
            self._refuse(asked, order.reason, Refusal("the provider drops nothing by its source", hint))
        areas = all_areas(self.policy) if kind == "source" else areas_at(self.policy, net)
        grant = self._granted(asked, order, areas, victim=kind == "victim")
        key: Key = (kind, net_text(net))
        now_ns, others = time.monotonic_ns(), self._others(key)
        why = self._envelope.refuse_announcement(
            net, kind, now_ns + grant.ttl_ns, now_ns, others, again=key in self._wanted
        )
        if why:
            self._refuse(asked, order.reason, Refusal(why, "no act goes beyond that, whoever asks"))
        return await self._put(key, _announced(key, grant, order.reason, order.loss), grant)

    async def flow(self, order: FlowOrder) -> dict[str, Any]:
        """What was done. OperatorError, as of blackholes."""
        asked = f"FlowSpec rule about {order.destination}"
        if self._flowspec is None:
            hint = "docs/flowspec.md has it"
            self._refuse(asked, order.reason, Refusal("there is no [enforcer.upstream.flowspec]", hint))
        if self._flowspec.reason:
            self._refuse(asked, order.reason, Refusal(self._flowspec.reason, 'pip install "scrubber[bgp]"'))
        try:
            flow = flow_meant(order, 1 << 62)
        except ValueRefused as error:
            self._refuse(asked, order.reason, Refusal(error.message, error.hint or error.expected))
        areas = areas_at(self.policy, flow.destination)
        grant = self._granted(asked, order, areas, victim=flow.source is None)
        now_ns = time.monotonic_ns()
        flow = msgspec.structs.replace(flow, until_ns=now_ns + grant.ttl_ns)
        key: Key = ("flow", flow.match)
        before = self._wanted.get(key)
        again = before is not None and before.flow is not None and before.flow.action == flow.action
        why = self._envelope.refuse_flow(flow, now_ns, self._others(key), again=again)
        if why:
            self._refuse(asked, order.reason, Refusal(why, "no act goes beyond that, whoever asks"))
        announced = msgspec.structs.replace(_announced(key, grant, order.reason, order.loss), flow=flow)
        return await self._put(key, announced, grant)

    def withdraw(self, order: WithdrawOrder) -> dict[str, Any]:
        """What was done. OperatorError: there is no such announcement."""
        wanted = order.target.strip()
        with contextlib.suppress(ValueRefused):
            wanted = net_text(net_meant(wanted, self._protects)[0])
        key = next((key for key in self._wanted if key[1] == wanted), None)
        if key is None:
            raise OperatorError(f"{order.target} is not announced", hint="scrubber blackholes lists what is")
        self._take_out(key, f"by hand{f': {order.reason}' if order.reason else ''}", order.reason)
        self.say_all()
        return {"did": "withdrawn", "target": key[1], "kind": key[0]}

    def listed(self) -> list[dict[str, Any]]:
        """What is wanted upstream, and what became of it; the latest first."""
        now_ns, offset_ns = time.monotonic_ns(), _wall_offset_ns()
        wanted = sorted(self._wanted.items(), key=lambda item: -item[1].since_ns)
        return [
            {
                **described(each, now_ns, self._state(key)),
                "since": acts.timestamp(each.since_ns),
                "expires": acts.timestamp(each.until_ns + offset_ns),
            }
            for key, each in wanted
        ]

    def counted(self, net: Net, count: int) -> None:
        """So many bytes of it the kernel has dropped in all."""
        if self._settings.link_rate:
            self._heaviest.counted(net, count, time.monotonic_ns())

    def covers(self, net: Net) -> bool:
        """Whether all of it is a source that is dropped upstream: its silence here says nothing."""
        return self._sources.holds(net)

    def _granted(self, asked: str, order: BlackholeOrder | FlowOrder, areas: list[str], *, victim: bool) -> Grant:
        if self.reason is None:
            self._refuse(asked, order.reason, Refusal("there is no enforcer", "scrubber status says why"))
        if victim and not order.loss.strip():
            hint = 'say what is lost with it: --loss "the shop is not reachable"'
            self._refuse(asked, order.reason, Refusal("everybody who wants to go there is dropped, too", hint))
        now = datetime.datetime.now(datetime.UTC)
        answer = allowed(self.policy, areas, round(order.ttl_s * NS_PER_S), now)
        if isinstance(answer, Refusal):
            self._refuse(asked, order.reason, answer)
        return answer

    async def _put(self, key: Key, announced: Announced, grant: Grant) -> dict[str, Any]:
        """Wanted from now on; waits for what the enforcer says of it."""
        before = self._wanted.get(key)
        self._wanted[key] = announced
        self._states.pop(key, None)
        why = await self._answer(key)
        if why:
            self._wanted.pop(key, None)
            if before is not None:
                self._wanted[key] = before
            self._refuse(f"{key[0]} {key[1]}", announced.reason, Refusal(why, "scrubber status says more"))
        self._save_soon()
        for_ = format_duration(grant.ttl_ns)
        action = "flowspec" if key[0] == "flow" else "blackhole"
        said = f"{action} {'' if key[0] == 'flow' else f'of {key[0]} '}{key[1]} for {for_} under {announced.clause}"
        self._record(action, f"{said}: {announced.reason}", announced, grant)
        return {
            "did": "announced" if key in self._in_force else "asked for",
            "kind": key[0],
            "target": key[1],
            "ttl_s": grant.ttl_ns / NS_PER_S,
            "rule": announced.clause,
            "state": self._state(key),
        }

    async def _answer(self, key: Key) -> str:
        """Say all, and wait for what becomes of this one: "" or why it is refused."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.say_all()
        self._answers.append((self._revision, future))
        with contextlib.suppress(TimeoutError):  # then it stays wanted, and is said again
            await asyncio.wait_for(future, ANSWER_S)
        return self._states.get(key, "")

    def _others(self, key: Key) -> int:
        """How many of its kind there are beside it."""
        flow = key[0] == "flow"
        return sum((kind == "flow") == flow and (kind, target) != key for kind, target in self._wanted)

    def _look_at_clauses(self, policy: PolicyInForce) -> None:
        """What no mandate allows any more is not wanted any more."""
        now = datetime.datetime.now(datetime.UTC)
        clauses = {clause for clause, _ in load_rules(policy.mandates)}
        clauses |= {clause_by_hand(mandate.id) for mandate in policy.mandates if "blackhole" in mandate.head.powers}
        for key, each in list(self._wanted.items()):
            if each.clause not in clauses or isinstance(allowed(policy, self._areas(policy, each), 0, now), Refusal):
                self._take_out(key, "its mandate does not allow it any more", "")
        if self._said_at:
            self.say_all()

    @staticmethod
    def _areas(policy: PolicyInForce, each: Announced) -> list[str]:
        """Which are cut off by it."""
        if each.kind == "source":
            return all_areas(policy)
        return areas_at(policy, each.flow.destination if each.flow is not None else net_of(each.target))

    def _expire(self) -> None:
        now_ns = time.monotonic_ns()
        over = [key for key, each in self._wanted.items() if each.until_ns <= now_ns]
        for key in over:
            self._take_out(key, "its time is over", "")
        if over:
            self.say_all()

    def _take_out(self, key: Key, why: str, reason: str) -> None:
        each = self._wanted.pop(key)
        self._states.pop(key, None)
        if self._flowspec is not None and key[0] == "flow":
            self._flowspec.withdraw(key[1])  # which needs nobody's leave
        self._save_soon()
        fields = {"rule.name": each.clause, "event.reason": reason, **_names(each)}
        self._journal.record(acts.made("withdraw", f"withdraw {key[0]} {key[1]}: {why}", **fields))

    # ── the link's load ──

    def _look_at_load(self) -> None:
        """Sources that fill the line are dropped before it, where a rule says so."""
        policy, settings = self.policy, self._settings
        if not settings.link_rate:
            return
        now_ns = time.monotonic_ns()
        try:
            self._load.count(received_bytes(NET_DEV.read_text(encoding="ascii"), settings.link_interfaces), now_ns)
        except OSError as error:
            self._note(("load", ""), f"the line's load is not known: {error.strerror}", "")
            return
        for clause, rule in load_rules(policy.mandates):
            above = self._load.ppm >= (rule.when.link_load_ppm or 0)
            if self._pressed.due(clause, rule.climb_ns, now_ns, above=above):
                self._relieve(policy, clause, rule, now_ns)
                self._pressed.acted(now_ns)
            elif not above:
                self._noted.pop(("source", clause), None)  # the next time is another case

    def _relieve(self, policy: PolicyInForce, clause: str, rule: Rule, now_ns: int) -> None:
        rung = next(rung for rung in rule.then if rung.measure == "blackhole")
        if self._settings.source_community is None:
            said = "blackhole passed over: the line is full, but the provider drops nothing by its source"
            self._note(("source", clause), said, clause, action="skip")
            return
        grant = allowed(policy, all_areas(policy), rung.ttl_ns, datetime.datetime.now(datetime.UTC), rule=clause)
        if isinstance(grant, Refusal):
            self._note(("source", clause), f"blackhole by {clause} refused: {grant.reason}", clause)
            return
        excess = self._load.excess_bytes_per_s(rule.when.link_load_ppm or 0)
        known = {net_of(target) for kind, target in self._wanted if kind == "source"}
        percent = f"the line carries {self._load.ppm * 100 / PPM:.0f} % of what it can"
        others = self._others(("source", ""))
        put = 0
        heaviest = self._heaviest.enough(max(excess, 1), known, now_ns)
        if not heaviest:
            said = "blackhole passed over: the line is full, but not with what the kernel drops of blocked sources"
            self._note(("source", clause), said, clause, action="skip")
        for net in heaviest:
            key: Key = ("source", net_text(net))
            until_ns = now_ns + grant.ttl_ns
            why = self._envelope.refuse_announcement(net, "source", until_ns, now_ns, others + put)
            if why:
                self._note(key, f"blackhole of source {key[1]} by {clause} refused: {why}", clause)
                continue
            announced = _announced(key, grant, percent)
            self._wanted[key] = announced
            put += 1
            said = f"blackhole of source {key[1]} for {format_duration(grant.ttl_ns)} by {clause}: {percent}"
            self._record("blackhole", said, announced, grant)
        if put:
            self._save_soon()
            self.say_all()

    # ── the way to the enforcer ──

    def say_all(self) -> None:
        """All that is wanted, to an enforcer that knows what is allowed."""
        self._said_at = asyncio.get_running_loop().time()
        self._revision += 1
        nets = [
            (net_of(each.target), each.kind, each.until_ns) for each in self._wanted.values() if each.kind != "flow"
        ]
        self._flows = [
            (key, msgspec.structs.replace(each.flow, until_ns=each.until_ns))
            for key, each in self._wanted.items()
            if each.flow is not None
        ]
        rules = [Rules(self._revision, [flow for _, flow in self._flows])] if self._flowspec is not None else []
        # Rules first: the answer to both ends with what became of blackholes.
        self._tell(iter([*rules, *announce_parts(self._revision, nets)]))

    def begun(self, reason: str | None) -> None:
        """An enforcer is there, and says whether it can announce."""
        self.reason = reason if reason is not None else "the enforcer was started without [enforcer.upstream]"

    def ended(self) -> None:
        """It is gone, and with it what it announced."""
        self.reason = None
        self._now_in_force({key for key in self._in_force if key[0] == "flow"})

    def hear(self, message: Announcing | Ruled) -> None:
        """What became of it."""
        if isinstance(message, Ruled):
            self._hear_ruled(message)
            return
        self._begun |= {(kind, net_text(net)) for net, kind in message.in_force}
        self._take_refusals({(kind, net_text(net)): why for net, kind, why in message.refused})
        if message.more:
            return
        self._now_in_force(self._begun | {key for key in self._in_force if key[0] == "flow"})
        self._begun = set()
        for revision, future in self._answers:
            if revision <= message.revision and not future.done():
                future.set_result(None)
        self._answers = [answer for answer in self._answers if not answer[1].done()]

    def _now_in_force(self, keys: set[Key]) -> None:
        self._in_force = keys
        self._sources = Spans(net_of(target) for kind, target in keys if kind == "source")
        for key in keys:
            self._states.pop(key, None)

    def _hear_ruled(self, message: Ruled) -> None:
        if message.revision != self._revision or self._flowspec is None:
            return
        refused = {self._flows[place][0]: why for place, why in message.refused if place < len(self._flows)}
        may = {key: flow for key, flow in self._flows if key not in refused}
        for flow, why in self._flowspec.want(may.values()).items():
            refused["flow", flow] = why
        self._now_in_force({key for key in self._in_force if key[0] != "flow"} | (may.keys() - refused.keys()))
        self._take_refusals(refused)

    def _take_refusals(self, refused: dict[Key, str]) -> None:
        for key, why in refused.items():
            self.refused += 1
            self._states[key] = why
            each = self._wanted.get(key)
            self._note(key, f"{key[0]} {key[1]} is not announced: {why}", each.clause if each else "")

    # ── beyond this process ──

    async def _bring_back(self) -> None:
        """What a supervisor before us announced, as far as it may still be."""
        try:
            key = await asyncio.to_thread(lambda: secret.read(self._directory).upstream)
        except ScrubberError as error:
            self._logger.error("%s", error.message)
            return
        found, damage = await asyncio.to_thread(announced_file.read, self._directory, key)
        if damage:
            self._journal.record(acts.made("unreadable", damage))
        now_ns = time.time_ns()
        for each in found:
            left_ns = min(each.until_ns - now_ns, each.until_ns - each.since_ns)  # a clock that was set back
            if left_ns > 0:
                alive = msgspec.structs.replace(each, until_ns=time.monotonic_ns() + left_ns)
                self._wanted.setdefault((each.kind, each.target), alive)
        self._look_at_clauses(self.policy)
        self.say_all()

    def _save_soon(self) -> None:
        self._unsaved = True
        self._changed.set()

    async def _save(self) -> None:
        self._unsaved = False
        offset_ns = _wall_offset_ns()
        wanted = [msgspec.structs.replace(e, until_ns=e.until_ns + offset_ns) for e in self._wanted.values()]
        try:
            await asyncio.to_thread(self._write, wanted)
        except (OSError, ScrubberError) as error:
            self._unsaved = True
            if self._trouble.tell(1, asyncio.get_running_loop().time()):
                self._logger.warning("what is announced upstream is not on disk: %s", error)

    def _write(self, wanted: list[Announced]) -> None:
        announced_file.write(self._directory, secret.read(self._directory).upstream, wanted)

    # ── what is said of it ──

    def describe(self) -> dict[str, Any]:
        """For the status document."""
        kinds = [kind for kind, _ in self._in_force]
        return {
            "reason": self.reason,
            "announced": {kind: kinds.count(kind) for kind in ("victim", "source", "flow")},
            "wanted": len(self._wanted),
            "refused": self.refused,
            "link_load": round(self._load.ppm / PPM, 4) if self._settings.link_rate else None,
            "flowspec": self._flowspec.describe() if self._flowspec is not None else None,
        }

    def _state(self, key: Key) -> str:
        return "announced" if key in self._in_force else self._states.get(key, "asked for")

    def _record(self, action: str, said: str, announced: Announced, grant: Grant) -> None:
        fields = {
            "rule.name": announced.clause,
            "event.reason": announced.reason,
            "scrubber.measure": "blackhole",
            "scrubber.ttl_s": grant.ttl_ns / NS_PER_S,
            # Mandates are not signed yet: nobody's signature is counted, and the record says so.
            "scrubber.signatures_wanted": grant.signatures,
            "scrubber.signatures": 0,
            **_names(announced),
        }
        if announced.loss:
            fields["scrubber.loss"] = announced.loss
        self._journal.record(acts.made(action, said, **fields))

    def _note(self, key: Key, said: str, clause: str, *, action: str = "refuse") -> None:
        """On the record once."""
        if self._noted.get(key) != said:
            if len(self._noted) >= NOTED_MAX:
                self._noted.clear()
            self._noted[key] = said
            self._journal.record(acts.made(action, said, **{"rule.name": clause, "scrubber.target": key[1]}))

    def _refuse(self, asked: str, reason: str, refusal: Refusal) -> NoReturn:
        """Record it, then raise OperatorError."""
        self.refused += 1
        fields = {"event.reason": reason, "scrubber.reason": refusal.reason}
        self._journal.record(acts.made("refuse", f"{asked} refused: {refusal.reason}", **fields))
        raise OperatorError(f"not announced: {refusal.reason}", hint=refusal.hint)


def _announced(key: Key, grant: Grant, reason: str, loss: str = "") -> Announced:
    kind = key[0]
    return Announced(
        kind="victim" if kind == "victim" else "source" if kind == "source" else "flow",
        target=key[1],
        clause=grant.clause,
        reason=reason,
        loss=loss,
        since_ns=time.time_ns(),
        until_ns=time.monotonic_ns() + grant.ttl_ns,
    )


def _wall_offset_ns() -> int:
    return time.time_ns() - time.monotonic_ns()


def _names(announced: Announced) -> dict[str, Any]:
    return {"scrubber.target": announced.target, "scrubber.target_kind": announced.kind}

"""What is wanted upstream against what is announced, in any order of orders, changes of what is allowed, and accidents.

The announcer here is a dictionary that keeps to the interface, and can lose and refuse: the real one is tried with BIRD
(tests/net/test_announce.py, test_upstream.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from scrubber.enforce.announce import Announcer, Blackhole
from scrubber.enforce.envelope import Envelope, Floor, Terms
from scrubber.enforce.flow import Flow
from scrubber.enforce.net import Net, net_of, overlap
from scrubber.enforce.upstream import LOST_NS, Upstream

S = 1_000_000_000
OURS = net_of("203.0.113.0/24")
VICTIMS = [net_of(f"203.0.113.{n}") for n in (1, 2, 3)]
SOURCES = [net_of(text) for text in ("198.18.1.1", "198.18.1.0/24", "198.18.2.0/24", "2001:db8:1::/64", "0.0.0.0/0")]
KEYS: list[Blackhole] = [*((net, "victim") for net in (*VICTIMS, OURS)), *((net, "source") for net in SOURCES)]
CAPS: dict[str, Any] = {
    "v4_widest": 24, "v6_widest": 48, "ttl_ns_max": 600 * S,
    "announcements_max": 4, "announcements_per_min": 1000, "flows_max": 2,
}  # fmt: skip


class Board:
    """An announcer in memory. `never`: asked at each announcement, whether this may not be."""

    def __init__(self, never: Callable[[Net], bool] = lambda _: False) -> None:
        self.up: dict[Blackhole, int] = {}
        self.never = never
        self.full = False
        self.acts = 0

    def apply(self, put: Mapping[Blackhole, int], remove: Collection[Blackhole], now_ns: int) -> dict[Blackhole, str]:
        for key in remove:
            self.up.pop(key, None)
        failed = {}
        for key, until_ns in put.items():
            assert not self.never(key[0]), "an announcement of what is never blocked"
            assert until_ns > now_ns
            self.acts += 1
            if self.full and key not in self.up:
                failed[key] = "full"
            else:
                self.up[key] = until_ns
        return failed

    def listed(self, now_ns: int) -> dict[Blackhole, int]:
        self.up = {key: until_ns for key, until_ns in self.up.items() if until_ns > now_ns}
        return dict(self.up)


def made(board: Board, **floor: Any) -> tuple[Upstream, Envelope]:
    envelope = Envelope(Floor(protects=(OURS,), **{**CAPS, **floor}))
    envelope.use(Terms(**CAPS))
    return Upstream(cast(Announcer, board), envelope), envelope


def rule_for(last: int, source: str | None = "198.18.9.9", left_s: int = 60) -> Flow:
    return Flow(destination=net_of(f"203.0.113.{last}"), until_ns=left_s * S, source=net_of(source) if source else None)


def test_what_is_wanted_is_announced_and_what_is_not_is_withdrawn() -> None:
    board = Board()
    upstream, _ = made(board)
    upstream.want({KEYS[0]: 60 * S, KEYS[4]: 90 * S})
    assert upstream.step(S)
    assert board.up == {KEYS[0]: 60 * S, KEYS[4]: 90 * S}
    assert not upstream.step(S)
    assert upstream.due_ns() == 60 * S
    upstream.want({KEYS[4]: 99 * S})
    upstream.step(2 * S)
    assert board.up == {KEYS[4]: 99 * S}
    upstream.step(99 * S)
    assert board.up == {} and upstream.due_ns() is None


def test_without_a_supervisor_all_is_withdrawn_after_a_minute() -> None:
    board = Board()
    upstream, _ = made(board)
    upstream.want({KEYS[0]: 600 * S})
    upstream.step(S)
    upstream.lost(10 * S)
    assert upstream.due_ns() == 10 * S + LOST_NS
    upstream.step(10 * S + LOST_NS - 1)
    assert board.up
    upstream.found()
    upstream.step(11 * S + LOST_NS)
    assert board.up, "another one came in time"
    upstream.lost(100 * S)
    upstream.lost(130 * S)  # still the same loss
    upstream.step(100 * S + LOST_NS)
    assert board.up == {}


def test_what_somebody_else_takes_away_is_announced_again() -> None:
    board = Board()
    upstream, _ = made(board, announcements_per_min=1)
    upstream.want({KEYS[0]: 60 * S})
    upstream.step(S)
    board.up.clear()
    assert upstream.compare(2 * S) == 1
    upstream.step(2 * S)
    assert upstream.refused == {KEYS[0]: "too fast: 1 announcements within a minute"}, "routers hear it anew"


def test_what_the_kernel_refuses_is_said() -> None:
    board = Board()
    upstream, _ = made(board)
    board.full = True
    upstream.want({KEYS[0]: 60 * S, (OURS, "victim"): 60 * S, (VICTIMS[0], "friend"): 60 * S})
    upstream.step(S)
    assert upstream.refused[KEYS[0]] == "full"
    assert "all that we protect" in upstream.refused[OURS, "victim"]
    assert "no kind" in upstream.refused[VICTIMS[0], "friend"]
    assert upstream.in_force == []


def test_without_an_announcer_everything_is_refused() -> None:
    upstream = Upstream(None, Envelope(Floor(protects=(OURS,), **CAPS)))
    upstream.want({KEYS[0]: 60 * S})
    upstream.step(S)
    assert upstream.refused == {KEYS[0]: "nothing can be announced here"}
    assert upstream.compare(S) == 0 and not upstream.disturbed() and upstream.fileno() == -1
    upstream.close()


def test_rules_are_judged_as_a_whole() -> None:
    upstream, envelope = made(Board(), announcements_per_min=3)
    first, second, third = rule_for(1), rule_for(2), rule_for(3)
    assert upstream.judge([first, second], S) == []
    assert [place for place, _ in upstream.judge([first, second, third], S)] == [2], "two are the most"
    assert upstream.judge([first, second], S) == [], "what is announced is not announced anew"
    ((place, why),) = upstream.judge([first, first], S)
    assert (place, why) == (1, "it is there twice")
    assert upstream.judge([third], S) == []
    assert "too fast" in upstream.judge([second], S)[0][1]
    envelope.use(Terms(**{**CAPS, "flows_max": 0}))
    assert "full" in upstream.judge([third], S)[0][1]


class Machine(RuleBasedStateMachine):
    """Nothing never-block is ever announced, nothing outlasts its end or its order, and what is said is what is."""

    @initialize()
    def begin(self) -> None:
        self.now = S
        self.never: set[Net] = set()
        self.board = Board(self.is_never)
        self.upstream, self.envelope = made(self.board)
        self.wanted: dict[Blackhole, int] = {}
        self.lost_at = 0

    def is_never(self, net: Net) -> bool:
        return any(overlap(net, other) for other in self.never)

    def settle(self) -> None:
        self.upstream.step(self.now)

    @rule(keys=st.sets(st.sampled_from(KEYS), max_size=6), left_s=st.sampled_from([1, 30, 599, 601]))
    def want(self, keys: set[Blackhole], left_s: int) -> None:
        self.wanted = {key: self.now + left_s * S for key in keys}
        self.upstream.want(self.wanted)
        self.settle()

    @rule(never=st.sets(st.sampled_from([*VICTIMS, *SOURCES[:4]]), max_size=2), own=st.booleans())
    def reload(self, never: set[Net], own: bool) -> None:
        self.envelope.use(Terms(never=tuple(never), own=tuple(never & set(VICTIMS)) if own else (), **CAPS))
        self.never = never - set(VICTIMS) if own else never
        self.upstream.ask_again()
        self.settle()

    @rule(seconds=st.sampled_from([1, 5, 61]))
    def wait(self, seconds: int) -> None:
        self.now += seconds * S
        self.settle()

    @rule()
    def supervisor_dies(self) -> None:
        self.lost_at = self.lost_at or self.now
        self.upstream.lost(self.now)
        self.settle()

    @rule()
    def another_comes(self) -> None:
        if self.lost_at and self.now - self.lost_at >= LOST_NS:
            self.wanted = {}
        self.lost_at = 0
        self.upstream.found()
        self.settle()

    @rule(full=st.booleans())
    def fill(self, full: bool) -> None:
        self.board.full = full

    @rule(data=st.data())
    def somebody_takes_away(self, data: st.DataObject) -> None:
        if self.board.up:
            del self.board.up[data.draw(st.sampled_from(sorted(self.board.up)))]
        self.upstream.compare(self.now)
        self.settle()

    @invariant()
    def holds(self) -> None:
        board = self.board.listed(self.now)
        assert set(board) == set(self.upstream.in_force)
        assert len(board) <= CAPS["announcements_max"]
        for (net, kind), until_ns in board.items():
            assert self.now < until_ns <= self.now + CAPS["ttl_ns_max"]
            assert not self.is_never(net)
            assert self.wanted.get((net, kind), 0) == until_ns, "nobody asked for it"
            assert not (self.lost_at and self.now - self.lost_at >= LOST_NS)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)

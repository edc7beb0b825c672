"""The ladder against its slow reference, skipped rungs, eviction, dead lock owners, hostile numbers, processes."""

from __future__ import annotations

import mmap
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from scrubber import _native
from tests.reference.ladder import Ladder
from tests.unit.race import PARTIES, page, together

S = 10**9
CALM = 10 * S
BUCKET_BYTES = 128
ALL = 0xFF
NONE = (-1, False, -1)
LOCK_AT = 28


def native(buckets: int = 1) -> _native.ProbeLadder:
    return _native.ProbeLadder(mmap.mmap(-1, buckets * BUCKET_BYTES))


both = pytest.mark.parametrize("make", [native, Ladder])


@both
def test_climbs_while_it_keeps_on_and_comes_down_when_calm(make: type[Ladder]) -> None:
    ladder, holds, t = make(), [2 * S, 2 * S, 2 * S], 100 * S
    assert ladder.under(5, holds, ALL, CALM, t) == NONE
    assert ladder.over(5, holds, ALL, CALM, t) == (0, True, -1)
    assert ladder.over(5, holds, ALL, CALM, t + 2 * S - 1) == (0, False, -1)
    assert ladder.over(5, holds, ALL, CALM, t + 2 * S) == (1, True, -1)
    assert ladder.under(5, holds, ALL, CALM, t + 3 * S) == (1, False, -1)
    assert ladder.over(5, holds, ALL, CALM, t + 9 * S) == (2, True, -1)
    assert ladder.over(5, holds, ALL, CALM, t + 15 * S) == (2, False, -1)
    assert ladder.under(5, holds, ALL, CALM, t + 25 * S - 1) == (2, False, -1)
    assert ladder.under(5, holds, ALL, CALM, t + 25 * S) == NONE
    assert ladder.over(5, holds, ALL, CALM, t + 26 * S) == (0, True, -1)


@both
def test_one_rung_a_call_however_late(make: type[Ladder]) -> None:
    ladder, holds = make(), [S, S, S]
    rungs = [ladder.over(5, holds, ALL, CALM, t * S)[0] for t in (100, 109, 118, 127)]
    assert rungs == [0, 1, 2, 2]


@both
def test_a_rung_not_available_is_skipped_in_place(make: type[Ladder]) -> None:
    ladder, holds = make(), [2 * S, 3 * S, S]
    assert ladder.over(5, holds, 0b101, CALM, 100 * S) == (0, True, -1)
    assert ladder.over(5, holds, 0b101, CALM, 102 * S) == (0, True, 1)
    assert ladder.over(5, holds, 0b101, CALM, 104 * S) == (0, False, 1)
    assert ladder.under(5, holds, 0b101, CALM, 104 * S) == (0, False, 1)
    assert ladder.over(5, holds, 0b101, CALM, 105 * S) == (2, True, -1)


@both
def test_nothing_below_a_skipped_rung_is_observing(make: type[Ladder]) -> None:
    ladder, holds = make(), [2 * S, 2 * S]
    assert ladder.over(5, holds, 0b10, CALM, 100 * S) == (-1, True, 0)
    assert ladder.over(5, holds, 0b10, CALM, 101 * S) == (-1, False, 0)
    assert ladder.over(5, holds, 0b10, CALM, 102 * S) == (1, True, -1)
    assert ladder.over(6, holds, 0, CALM, 102 * S) == (-1, True, 0)


@both
def test_a_shorter_ladder_after_a_reload(make: type[Ladder]) -> None:
    ladder = make()
    for t in (100, 102, 104):
        ladder.over(5, [S] * 3, ALL, CALM, t * S)
    assert ladder.under(5, [S], ALL, CALM, 105 * S) == (0, False, -1)
    assert ladder.over(5, [S], ALL, CALM, 106 * S) == (0, False, -1)
    assert ladder.over(5, [], ALL, CALM, 106 * S) == NONE


@both
def test_a_ladder_that_grows_back_lifts_nobody(make: type[Ladder]) -> None:
    ladder = make()
    for t in (100, 101, 102):
        ladder.over(5, [S] * 3, ALL, CALM, t * S)
    assert ladder.over(5, [S], ALL, CALM, 103 * S) == (0, False, -1)
    assert ladder.under(5, [S] * 3, ALL, CALM, 103 * S) == (0, False, -1)


class Both(RuleBasedStateMachine):
    """Native and reference, call by call; keys of different buckets."""

    def __init__(self) -> None:
        super().__init__()
        self.native, self.slow, self.now = native(8), Ladder(), 10**12

    @rule(ns=st.integers(0, 6 * S))
    def wait(self, ns: int) -> None:
        self.now += ns

    @rule(key=st.integers(1, 8), holds=st.lists(st.integers(0, 5 * S), max_size=8), available=st.integers(0, 255),
          calm=st.integers(1, 12 * S), over=st.booleans())  # fmt: skip
    def ask(self, key: int, holds: list[int], available: int, calm: int, over: bool) -> None:
        name = "over" if over else "under"
        fast = getattr(self.native, name)(key, holds, available, calm, self.now)
        assert fast == getattr(self.slow, name)(key, holds, available, calm, self.now)


Both.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBoth = Both.TestCase


def test_full_bucket_loses_the_calm_one_first_then_the_lowest() -> None:
    ladder, holds = native(), [S, S, S]
    for climbs, key in enumerate((1, 2, 3), start=1):
        for i in range(climbs):
            ladder.over(key, holds, ALL, CALM, (100 + i) * S)
    ladder.over(4, holds, ALL, CALM, 90 * S)
    ladder.over(5, holds, ALL, CALM, 103 * S)
    under = {key: ladder.under(key, holds, ALL, CALM, 103 * S)[0] for key in range(1, 6)}
    assert under == {1: 0, 2: 1, 3: 2, 4: -1, 5: 0}, "4 was calm"
    ladder.over(6, holds, ALL, CALM, 104 * S)
    under = {key: ladder.under(key, holds, ALL, CALM, 104 * S)[0] for key in range(1, 7)}
    assert under == {1: -1, 2: 1, 3: 2, 4: -1, 5: 0, 6: 0}, "1 was the lowest, and longer ago than 5"


def test_a_dead_owner_s_lock_is_broken_and_a_living_one_s_is_not_waited_for() -> None:
    memory = mmap.mmap(-1, BUCKET_BYTES)
    ladder, t = _native.ProbeLadder(memory), 100 * S
    ladder.over(5, [S, S], ALL, CALM, t)
    now = t + 2 * S
    struct.pack_into("<I", memory, LOCK_AT, (now >> 10 | 1) & 0xFFFFFFFF)
    assert ladder.over(5, [S, S], ALL, CALM, now) == (1, False, -1), "answered, not recorded"
    assert struct.unpack_from("<I", memory, LOCK_AT)[0] != 0
    assert ladder.over(5, [S, S], ALL, CALM, now + 6_000_000) == (1, True, -1)
    assert struct.unpack_from("<I", memory, LOCK_AT)[0] == 0


def test_clocks_a_pass_apart_do_no_harm() -> None:
    ladder = native()
    ladder.over(5, [S, S], ALL, CALM, 100 * S)
    assert ladder.over(5, [S, S], ALL, CALM, 100 * S - 2_000_000) == (0, False, -1)
    assert ladder.under(5, [S, S], ALL, CALM, 100 * S - 2_000_000) == (0, False, -1)


def test_a_time_far_in_the_future_is_forgotten() -> None:
    memory = mmap.mmap(-1, BUCKET_BYTES)
    ladder = _native.ProbeLadder(memory)
    ladder.over(5, [S, S], ALL, CALM, 100 * S)
    memory[16:24] = struct.pack("<Q", 2**64 - 1)
    assert ladder.under(5, [S, S], ALL, CALM, 101 * S) == NONE
    assert ladder.over(5, [S, S], ALL, CALM, 101 * S) == (0, True, -1)


@given(
    st.binary(min_size=BUCKET_BYTES, max_size=BUCKET_BYTES),
    st.lists(st.integers(0, 2**64 - 1), max_size=10),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
)
def test_any_memory_is_survived(noise: bytes, holds: list[int], calm: int, now: int, available: int) -> None:
    memory = mmap.mmap(-1, BUCKET_BYTES)
    memory[:] = noise
    ladder = _native.ProbeLadder(memory)
    for key in (struct.unpack_from("<Q", noise)[0], 7):
        for step in (ladder.over(key, holds, available, calm, now), ladder.under(key, holds, available, calm, now)):
            assert -1 <= step[0] < max(min(len(holds), 8), 1)
            assert -1 <= step[2] < max(min(len(holds), 8), 1)


def test_processes_climb_one_ladder() -> None:
    memory, meeting, keys = mmap.mmap(-1, 64 * BUCKET_BYTES), page(), 250

    def climb() -> int:
        return _native.probe_race_ladder(_native.ProbeLadder(memory), _native.ProbeTable(meeting), PARTIES, keys)

    entered = together(*[climb] * PARTIES)
    assert -1 not in entered, "a party was missing"
    assert sum(entered) == keys * 8, "each rung is entered once, by one of them"

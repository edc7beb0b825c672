"""Balancing: proportions, stability of hashes, slow start, the retry budget; and who an origin's state lets in."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubber import _native
from scrubber.mandate.layout import BALANCES
from tests.unit.regions import CAPACITIES

S = 1_000_000_000
WHOLE = 256
LEAST, ROUND, HASH = BALANCES["least_connections"], BALANCES["round_robin"], BALANCES["hash:client"]
GOOD, BACKUP, OUT, DRAINED = range(4)
RNG = random.Random(7)
KEYS = [RNG.getrandbits(64) for _ in range(64)]


def candidates(*weights: int, loads: tuple[int, ...] = ()) -> list[tuple[int, int, int]]:
    return [(w * WHOLE, (loads or (0,) * len(weights))[i], KEYS[i]) for i, w in enumerate(weights)]


def hashes(count: int) -> list[int]:
    rng = random.Random(count)
    return [rng.getrandbits(64) for _ in range(count)]


@pytest.mark.parametrize("kind", [ROUND, LEAST])
def test_turns_go_by_weight_and_smoothly(kind: int) -> None:
    picked = _native.probe_balance_pick(kind, candidates(5, 1, 1), [0] * 14)
    assert picked == [0, 0, 1, 0, 2, 0, 0] * 2


def test_the_least_loaded_by_weight_is_taken() -> None:
    assert _native.probe_balance_pick(LEAST, candidates(1, 1, 1, loads=(3, 1, 2)), [0]) == [1]
    assert _native.probe_balance_pick(LEAST, candidates(4, 1, 1, loads=(3, 1, 2)), [0]) == [0]
    assert _native.probe_balance_pick(LEAST, candidates(1, 8, loads=(0, 1)), [0]) == [0]


def test_hashes_are_spread_by_weight() -> None:
    counts = Counter(_native.probe_balance_pick(HASH, candidates(1, 2, 1), hashes(8000)))
    assert abs(counts[1] / 8000 - 0.5) < 0.03
    assert abs(counts[0] / 8000 - 0.25) < 0.03


def test_an_origin_that_goes_moves_its_own_keys_only() -> None:
    asked = hashes(2000)
    four = candidates(1, 1, 3, 1)
    before = [four[i][2] for i in _native.probe_balance_pick(HASH, four, asked)]
    three = four[:1] + four[2:]
    after = [three[i][2] for i in _native.probe_balance_pick(HASH, three, asked)]
    assert all(a == b for a, b in zip(after, before, strict=True) if b != four[1][2])
    assert len({a for a, b in zip(after, before, strict=True) if b == four[1][2]}) == 3


NUMBERS = st.tuples(st.integers(1, 65536), st.integers(0, 2**30), st.integers(0, 2**64 - 1))


@given(
    st.sampled_from(sorted(BALANCES.values())),
    st.lists(NUMBERS, min_size=1, max_size=64),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20),
)
def test_whatever_the_numbers_one_of_them_is_taken(
    kind: int, found: list[tuple[int, int, int]], asked: list[int]
) -> None:
    assert all(0 <= i < len(found) for i in _native.probe_balance_pick(kind, found, asked))


def test_weight_grows_through_the_slow_start() -> None:
    assert _native.probe_balance_weight(4, 0, 10 * S, 3 * S) == 4 * WHOLE  # long ago
    assert _native.probe_balance_weight(4, 100 * S, 0, 100 * S) == 4 * WHOLE  # no slow start
    assert _native.probe_balance_weight(4, 100 * S, 10 * S, 99 * S) == 4 * WHOLE  # a time that lies ahead
    assert _native.probe_balance_weight(4, 100 * S, 10 * S, 100 * S) == 4 * 16
    assert _native.probe_balance_weight(4, 100 * S, 10 * S, 105 * S) == 2 * WHOLE
    assert _native.probe_balance_weight(4, 100 * S, 10 * S, 110 * S) == 4 * WHOLE


def test_the_retry_budget_is_a_share_of_ten_seconds() -> None:
    budget, now = _native.ProbeRetryBudget(), 1000 * S
    assert sum(budget.take(200_000, 10, now) for _ in range(50)) == 10  # the floor
    for _ in range(500):
        budget.request(now)
    assert sum(budget.take(200_000, 10, now + S) for _ in range(500)) == 90  # 100 in all
    assert not budget.take(200_000, 10, now + 9 * S)
    assert sum(budget.take(200_000, 10, now + 20 * S) for _ in range(50)) == 10  # all forgotten


def test_without_a_budget_nothing_is_tried_again() -> None:
    budget = _native.ProbeRetryBudget()
    for _ in range(100):
        budget.request(5 * S)
    assert not budget.take(0, 0, 5 * S)


@pytest.fixture
def memory() -> Iterator[_native.Memory]:
    fds = {}
    for kind, capacity in CAPACITIES.items():
        fds[kind] = os.memfd_create(kind)
        _native.region_init(fds[kind], kind, capacity, 1)
    yield _native.Memory(fds, 0)
    for fd in fds.values():
        os.close(fd)


def test_ejection_needs_failures_in_a_row_and_grows(memory: _native.Memory) -> None:
    memory.origin_claim(3, 77, 0)

    def fail(now: int) -> bool:
        return bool(_native.probe_origin_fails(memory, 3, 77, now, 3, S, 4 * S))

    def standing(now: int) -> int:
        return int(_native.probe_origin_standing(memory, 3, 77, now, most_ns=4 * S))

    now = 1000 * S
    assert [fail(now) for _ in range(3)] == [False, False, True]
    assert (standing(now), standing(now + S)) == (OUT, GOOD)
    assert not fail(now)  # out already
    for expected in (2, 4, 4):
        now += 10 * S
        assert fail(now)  # one more is enough: no connect has worked since
        assert (standing(now + expected * S - 1), standing(now + expected * S)) == (OUT, GOOD)
    _native.probe_origin_works(memory, 3, now + 9 * S, 4 * S)
    assert memory.origin_state(3, 77)["ejections"] == 0
    assert [fail(now + 9 * S) for _ in range(3)] == [False, False, True]
    assert standing(now + 10 * S) == GOOD


def test_the_last_one_is_never_ejected(memory: _native.Memory) -> None:
    memory.origin_claim(3, 77, 0)
    assert not any(_native.probe_origin_fails(memory, 3, 77, S, 2, S, S, others=False) for _ in range(10))
    assert _native.probe_origin_standing(memory, 3, 77, S) == GOOD


def test_standing(memory: _native.Memory) -> None:
    memory.origin_claim(3, 77, 0)
    assert _native.probe_origin_standing(memory, 3, 77, S, backup=True) == BACKUP
    memory.origin_health(3, "down", S)
    assert _native.probe_origin_standing(memory, 3, 77, S) == OUT
    assert _native.probe_origin_standing(memory, 3, 78, S) == GOOD  # another origin's entry says nothing
    memory.origin_drain(3, True, 0)
    assert _native.probe_origin_standing(memory, 3, 77, S, backup=True) == DRAINED
    memory.origin_drain(3, False, 5 * S)
    memory.origin_health(3, "up", 6 * S)
    assert memory.origin_state(3, 77)["since_ns"] == 6 * S
    assert _native.probe_origin_standing(memory, 3, 77, S) == GOOD


def test_an_entry_is_claimed_once(memory: _native.Memory) -> None:
    assert memory.origin_claim(3, 77, 5 * S)
    memory.origin_drain(3, True, 0)
    assert not memory.origin_claim(3, 77, 9 * S)
    assert memory.origin_state(3, 77)["drained"]
    assert memory.origin_claim(3, 78, 9 * S)
    assert memory.origin_state(3, 77) == {}
    assert memory.origin_state(3, 78) == {
        "health": "unknown", "health_since_ns": 0, "since_ns": 9 * S, "ejected_until_ns": 0, "failures": 0,
        "ejections": 0, "drained": False,
    }  # fmt: skip
    with pytest.raises(IndexError):
        memory.origin_claim(1024, 1, 0)


def test_an_ejection_that_makes_no_sense_is_none(memory: _native.Memory) -> None:
    memory.origin_claim(3, 77, 0)
    assert _native.probe_origin_fails(memory, 3, 77, 100 * S, 1, 50 * S, 50 * S)
    assert _native.probe_origin_standing(memory, 3, 77, 100 * S, most_ns=50 * S) == OUT
    assert _native.probe_origin_standing(memory, 3, 77, 100 * S, most_ns=S) == GOOD

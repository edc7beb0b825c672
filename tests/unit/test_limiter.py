"""The limiter against its slow reference, real cases, hostile numbers, a full bucket and several processes."""

import json
import mmap
import multiprocessing
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scrubber import _native
from tests.corpora import CORPORA
from tests.reference.limiter import NEVER, Answer, Limiter, Rate
from tests.unit.race import PARTIES, page, together

BUCKET_BYTES = 128
SECOND = 1_000_000_000
CORPUS = CORPORA / "gcra.json"
WORDS = st.integers(0, 2**64 - 1)
RATES = st.builds(Rate, st.integers(1, 10**10), st.integers(1, 3600 * SECOND), st.integers(1, 10**6))


def native(buckets: int = 1) -> _native.ProbeLimiter:
    return _native.ProbeLimiter(mmap.mmap(-1, buckets * BUCKET_BYTES))


@pytest.mark.skipif(not CORPUS.exists(), reason=f"{CORPUS} is not here: set SCRUBBER_CORPORA")
@pytest.mark.parametrize("make", [native, Limiter])
def test_corpus(make: type[Limiter]) -> None:
    limiter, rate = make(), Rate(1, SECOND, 5)
    for row in json.loads(CORPUS.read_text()):
        answer = Answer(*limiter.admit(7, rate, row["volume"], 10**15 + row["now_ms"] * 10**6))
        assert (int(answer.limited), answer.remaining) == (row["limited"], row["remaining"]), row
        assert answer.reset_ns == row["reset_ms"] * 10**6, row
        retry_ms = -1 if answer.retry_ns in (0, NEVER) else answer.retry_ns // 10**6
        assert retry_ms == row["retry_ms"], row


@pytest.mark.parametrize("make", [native, Limiter])
@pytest.mark.parametrize(("count", "burst"), [(3, 3), (3, 2), (7, 100), (50, 100), (1, 1)])
def test_whole_burst_passes_at_once_and_no_more(make: type[Limiter], count: int, burst: int) -> None:
    limiter, rate = make(), Rate(count, SECOND, burst)
    answers = [Answer(*limiter.admit(9, rate, 1, SECOND)) for _ in range(burst + 1)]
    assert [a.limited for a in answers] == [False] * burst + [True]
    assert [a.remaining for a in answers] == [*range(burst - 1, -1, -1), 0]


@pytest.mark.parametrize("make", [native, Limiter])
def test_retry_is_exact(make: type[Limiter]) -> None:
    limiter, rate = make(), Rate(7, SECOND, 3)
    now = SECOND
    while not (answer := Answer(*limiter.admit(5, rate, 1, now))).limited:
        pass
    assert Answer(*limiter.admit(5, rate, 1, now + answer.retry_ns - 1)).limited
    assert not Answer(*limiter.admit(5, rate, 1, now + answer.retry_ns)).limited


@pytest.mark.parametrize("make", [native, Limiter])
def test_newcomers_see_their_share_only(make: type[Limiter]) -> None:
    limiter, rate = make(), Rate(10, SECOND, 10)
    newcomers = sum(not limiter.admit(5, rate, 1, SECOND, 500_000)[0] for _ in range(10))
    known = sum(not limiter.admit(5, rate, 1, SECOND)[0] for _ in range(10))
    assert (newcomers, known) == (5, 5)
    assert not limiter.admit(6, Rate(1, SECOND, 1), 1, SECOND, 1)[0], "a share lets one through an idle limiter"
    assert limiter.admit(7, rate, 1, SECOND, 0)[0], "no share, no newcomer"


@pytest.mark.parametrize("make", [native, Limiter])
def test_debt_is_bounded(make: type[Limiter]) -> None:
    limiter, rate = make(), Rate(1, SECOND, 2)
    limiter.charge(5, rate, 10**9, 3 * SECOND, SECOND)
    assert Answer(*limiter.admit(5, rate, 1, SECOND)) == (True, 0, 4 * SECOND, 5 * SECOND)
    limiter.charge(5, rate, 1, 0, SECOND)
    assert limiter.admit(5, rate, 0, SECOND)[3] == 5 * SECOND, "a smaller bound forgives nothing"


def test_key_zero_is_a_key() -> None:
    limiter, rate = native(), Rate(1, SECOND, 1)
    assert not limiter.admit(0, rate, 1, SECOND)[0]
    assert limiter.admit(0, rate, 1, SECOND)[0]
    assert limiter.admit(1, rate, 1, SECOND)[0]


def test_full_bucket_loses_the_one_due_soonest() -> None:
    limiter, rate = native(), Rate(1, SECOND, 100)
    for key in range(1, 9):
        limiter.admit(key, rate, 10 + key, SECOND)
    limiter.admit(9, rate, 50, SECOND)
    resets = {key: limiter.admit(key, rate, 0, SECOND)[3] // SECOND for key in range(1, 10)}
    assert resets == {1: 0, **{key: 10 + key for key in range(2, 9)}, 9: 50}


def test_eviction_never_charges_another_key() -> None:
    limiter, rate = native(), Rate(1, SECOND, 1)
    for key in range(1, 2000):
        assert not limiter.admit(key, rate, 1, SECOND)[0]


class Both(RuleBasedStateMachine):
    """Native and reference, call by call, on keys of different buckets (no eviction)."""

    def __init__(self) -> None:
        super().__init__()
        self.native, self.slow, self.now = native(8), Limiter(), 10**12

    @rule(ns=st.integers(0, 10 * SECOND))
    def wait(self, ns: int) -> None:
        self.now += ns

    @rule(key=st.integers(1, 8), rate=RATES, cost=st.integers(0, 10**6), share=st.integers(0, 1_100_000))
    def admit(self, key: int, rate: Rate, cost: int, share: int) -> None:
        fast = self.native.admit(key, rate, cost, self.now, share)
        assert fast == self.slow.admit(key, rate, cost, self.now, share)

    @rule(key=st.integers(1, 8), rate=RATES, cost=st.integers(0, 10**9), debt=st.integers(0, 3600 * SECOND))
    def charge(self, key: int, rate: Rate, cost: int, debt: int) -> None:
        self.native.charge(key, rate, cost, debt, self.now)
        self.slow.charge(key, rate, cost, debt, self.now)

    @invariant()
    def times_agree(self) -> None:
        for key in range(1, 9):
            fast = self.native.admit(key, Rate(1, 1, 1), 0, self.now)[3]
            assert fast == self.slow.backlog_ns(key, self.now)


Both.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestBoth = Both.TestCase


@given(st.tuples(WORDS, WORDS, WORDS), st.lists(st.tuples(WORDS, WORDS, WORDS, st.integers(0, 2**32 - 1)), max_size=8))
def test_any_numbers_are_survived(numbers: tuple[int, int, int], calls: list[tuple[int, int, int, int]]) -> None:
    limiter = native()
    for cost, now, debt, share in calls:
        limited, remaining, retry, reset = limiter.admit(3, numbers, cost, now, share)
        assert remaining <= numbers[2]
        assert limited == (retry > 0) or cost == 0
        if cost > numbers[2] or numbers[0] == 0:
            assert (limited, retry) == (True, NEVER)
        limiter.charge(3, numbers, cost, debt, now)
        assert limiter.admit(3, numbers, 0, now)[3] >= min(reset, 2**64 - 1 - now)


def _ask(memory: mmap.mmap, rate: Rate, until: float, pipe: "multiprocessing.connection.Connection") -> None:
    limiter, admitted = _native.ProbeLimiter(memory), 0
    while time.monotonic() < until:
        for _ in range(200):
            admitted += not limiter.admit(42, rate, 1, time.monotonic_ns())[0]
    pipe.send((admitted, time.monotonic_ns()))
    pipe.close()


def test_processes_share_one_limit() -> None:
    memory, rate = mmap.mmap(-1, BUCKET_BYTES), Rate(20_000, SECOND, 100)
    fork = multiprocessing.get_context("fork")
    begin = time.monotonic_ns()
    pipes, children = [], []
    for _ in range(3):
        ours, theirs = fork.Pipe(duplex=False)
        children.append(fork.Process(target=_ask, args=(memory, rate, time.monotonic() + 0.6, theirs)))
        children[-1].start()
        pipes.append(ours)
    results = [pipe.recv() for pipe in pipes]
    for child in children:
        child.join()
    admitted, end = sum(r[0] for r in results), max(r[1] for r in results)
    allowed = rate.burst + (end - begin) * rate.count // SECOND
    assert 100 < admitted <= allowed + 1


def test_processes_asking_at_once_pass_the_burst_and_no_more() -> None:
    memory, meeting, keys = mmap.mmap(-1, 64 * BUCKET_BYTES), page(), 400

    def ask() -> int:
        return _native.probe_race_limiter(_native.ProbeLimiter(memory), _native.ProbeTable(meeting), PARTIES, keys)

    passed = together(*[ask] * PARTIES)
    assert -1 not in passed, "a party was missing"
    assert sum(passed) == 3 * keys

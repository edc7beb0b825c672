"""The store of answers: a log and an index that many processes write and any of them may die over."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from functools import partial

import pytest

from scrubber import _native
from tests.unit.race import PARTIES, page, together
from tests.unit.regions import make_memory

W = _native.probe_cache_words()
NOW = 1 << 40
SOON = NOW + (10 << 30)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"


def store(log_bytes: int = 1 << 20) -> _native.ProbeCache:
    return _native.ProbeCache(make_memory(cache=log_bytes)[0])


def body_of(n: int, length: int) -> bytes:
    return bytes((n + i) & 0xFF for i in range(256)) * (length // 256) + bytes(length % 256)


def test_what_lies_in_shared_memory_has_its_size() -> None:
    sizes = {"CacheHead": 2112, "CacheEntry": 64, "CacheRecord": 128, "CacheSpec": 64, "CacheAnswer": 48}
    assert _native.probe_cache_sizes() == sizes
    assert W["CACHE_BODY_BYTES_MAX"] == 1 << 20


@pytest.mark.parametrize("length", [0, 1, 7, 8, 63, 64, 16383, 16384, 16385, 100_000])
def test_what_was_stored_comes_back(length: int) -> None:
    probe = store()
    body = body_of(3, length)
    assert probe.put(1, HEAD, body)
    assert probe.get(1) == (HEAD, body)
    assert probe.get(2) is None


def test_a_fresh_store_is_empty_and_one_of_no_bytes_stores_nothing() -> None:
    assert store().get(1) is None
    off = store(0)
    assert off.log_bytes == 0
    assert not off.put(1, HEAD, b"x")
    assert off.get(1) is None
    assert off.claim(1, 1, SOON, NOW)[0] == W["CLAIM_BUSY"]


def test_an_answer_has_at_most_an_eighth_of_the_log() -> None:
    probe = store(1 << 20)
    assert probe.put(1, HEAD, bytes(120_000))
    assert not probe.put(2, HEAD, bytes(140_000))
    assert store(1 << 24).put(1, HEAD, bytes(1 << 20))
    assert not store(1 << 24).put(1, HEAD, bytes((1 << 20) + 1))
    assert not probe.put(3, bytes(16385), b"")


def test_the_oldest_goes_and_memory_stays_what_it_was() -> None:
    probe = store(1 << 20)
    for n in range(1, 400):
        assert probe.put(n, HEAD, body_of(n, 10_000))
    kept = [n for n in range(1, 400) if probe.get(n) is not None]
    assert kept == list(range(kept[0], 400))  # a run of the latest
    assert 60 <= len(kept) <= 105
    assert all(probe.get(n) == (HEAD, body_of(n, 10_000)) for n in kept)


def test_more_keys_than_the_index_has_places() -> None:
    probe = store(1 << 20)
    for n in range(1, 5000):
        probe.put(n, b"h", b"")
    assert probe.entries <= 1024
    assert probe.get(4999) == (b"h", b"")


def test_what_is_asked_for_is_written_anew_before_its_turn() -> None:
    probe = store(1 << 20)
    assert probe.put(1, HEAD, body_of(9, 20_000))
    for n in range(2, 500):
        probe.put(n, HEAD, bytes(10_000))
        if probe.is_old(1):
            assert probe.renew(1)
            assert not probe.is_old(1)
    assert probe.get(1) == (HEAD, body_of(9, 20_000))
    assert probe.get(2) is None


@pytest.mark.parametrize("at", [0, 8, 12, 16, 20, 24, 32, 40, 48, 56, 64, 127, 128, 136, 150, 170, 400, 5_000])
def test_a_byte_that_is_not_ours_makes_it_a_miss(at: int) -> None:
    probe = store()
    assert probe.put(1, HEAD, body_of(1, 20_000))
    probe.poke(1, at, 0x41)
    assert probe.get(1) is None
    probe.poke(1, at, 0x41)
    assert probe.get(1) is not None


@pytest.mark.parametrize("pos", [1, 63, 64, 1 << 20, (1 << 20) - 64, 2**63, 2**64 - 64, 2**64 - 1])
def test_hostile_positions_are_bounded(pos: int) -> None:
    probe = store()
    probe.put(1, HEAD, b"x")
    probe.put(2, HEAD, b"y")
    probe.point(1, pos)
    assert probe.get(1) is None or pos == 1 << 20  # where the first record really lies
    assert probe.get(2) == (HEAD, b"y")


@pytest.mark.parametrize("tail", [0, 1, 2**64 - 1, 2**64 - 64, 2**63 + 7, 12345])
def test_a_hostile_tail_is_bounded(tail: int) -> None:
    probe = store()
    probe.put(1, HEAD, b"x")
    probe.tail = tail
    assert probe.get(1) in (None, (HEAD, b"x"))
    probe.put(2, HEAD, body_of(2, 30_000))
    assert probe.get(2) in (None, (HEAD, body_of(2, 30_000)))


class TestClaims:
    """One fetch a key."""

    def test_one_at_a_time(self) -> None:
        probe = store()
        outcome, word = probe.claim(1, 7, SOON, NOW)
        assert outcome == W["CLAIM_MINE"]
        assert probe.claim(1, 8, SOON, NOW)[0] == W["CLAIM_TAKEN"]
        assert probe.claim(2, 8, SOON, NOW)[0] == W["CLAIM_MINE"]
        assert probe.put(1, HEAD, b"x", claim=word)
        assert probe.claim(1, 8, SOON, NOW)[0] == W["CLAIM_MINE"]

    def test_one_that_is_not_renewed_lapses(self) -> None:
        probe = store()
        _, word = probe.claim(1, 7, SOON, NOW)
        later = SOON + (1 << 21)
        outcome, other = probe.claim(1, 8, later + (1 << 30), later)
        assert outcome == W["CLAIM_MINE"]
        assert probe.renew_claim(1, word, later + (1 << 31)) is None
        assert not probe.put(1, HEAD, b"late", claim=word)
        assert probe.get(1) is None
        assert probe.put(1, HEAD, b"in time", claim=other)
        assert probe.get(1) == (HEAD, b"in time")

    def test_one_that_is_renewed_holds(self) -> None:
        probe = store()
        _, word = probe.claim(1, 7, SOON, NOW)
        renewed = probe.renew_claim(1, word, SOON + (10 << 30))
        assert renewed is not None
        assert probe.claim(1, 8, SOON, SOON + (5 << 30))[0] == W["CLAIM_TAKEN"]
        assert probe.put(1, HEAD, b"x", claim=renewed)

    def test_what_is_not_to_be_stored_is_not_waited_for(self) -> None:
        probe = store()
        _, word = probe.claim(1, 7, SOON, NOW)
        probe.release(1, word, pass_ns=SOON)
        assert probe.claim(1, 8, SOON, NOW)[0] == W["CLAIM_PASS"]
        assert probe.claim(1, 8, SOON, NOW, eager=True)[0] == W["CLAIM_MINE"]
        assert store().claim(1, 8, SOON, NOW)[0] == W["CLAIM_MINE"]

    def test_after_a_failure_nobody_asks_for_a_moment(self) -> None:
        probe = store()
        _, word = probe.claim(1, 7, SOON, NOW)
        probe.release(1, word, retry_ns=NOW + (1 << 30))
        assert probe.claim(1, 8, SOON, NOW)[0] == W["CLAIM_RETRY"]
        assert probe.claim(1, 8, SOON, NOW + (1 << 30))[0] == W["CLAIM_MINE"]

    def test_a_release_of_somebody_elses_changes_nothing(self) -> None:
        probe = store()
        _, word = probe.claim(1, 7, SOON, NOW)
        probe.release(1, word ^ 1, pass_ns=SOON)
        assert probe.claim(1, 8, SOON, NOW)[0] == W["CLAIM_TAKEN"]

    def test_what_was_invalidated_while_it_was_fetched_is_not_stored(self) -> None:
        probe = store()
        _, word = probe.claim(1, 7, SOON, NOW)
        probe.invalidate(1)
        assert not probe.put(1, HEAD, b"before the change", claim=word)
        assert probe.get(1) is None

    def test_a_full_bucket_of_fetches_is_not_broken_into(self) -> None:
        probe = store(1 << 16)  # 64 places
        outcomes = [probe.claim(n, 7, SOON, NOW)[0] for n in range(1, 400)]
        assert outcomes.count(W["CLAIM_MINE"]) <= 64
        assert set(outcomes) == {W["CLAIM_MINE"], W["CLAIM_BUSY"]}


def test_invalidation_forgets_one_key() -> None:
    probe = store()
    probe.put(1, HEAD, b"x")
    probe.put(2, HEAD, b"y")
    probe.invalidate(1)
    assert probe.get(1) is None
    assert probe.get(2) is not None


def test_purge_by_tag_and_by_area() -> None:
    probe = store()
    probe.put(1, HEAD, b"x", area=1, tag=11)
    probe.put(2, HEAD, b"y", area=1, tag=11)
    probe.put(3, HEAD, b"z", area=1, tag=12)
    probe.put(4, HEAD, b"z", area=2, tag=11 << 8)
    assert probe.purge(1, 11) == 2
    assert [probe.get(n) is not None for n in (1, 2, 3, 4)] == [False, False, True, True]
    probe.purge(1, 0)
    assert [probe.get(n) is not None for n in (3, 4)] == [False, True]
    assert probe.put(3, HEAD, b"new", area=1)
    assert probe.get(3) == (HEAD, b"new")


def test_a_writer_that_is_late_by_a_round_of_the_log_brings_nothing_back() -> None:
    """Whole, and of the same key, but not the record that was put there: it may be from before a purge."""
    probe = store()
    late = probe.write_only(1, HEAD, b"old")
    assert probe.put(1, HEAD, b"new")
    assert probe.get(1) == (HEAD, b"new")
    probe.write_over(late, 1, 256)
    assert probe.get(1) is None


def test_purge_reaches_a_first_fetch() -> None:
    """What was asked for before a purge may be the old answer: it is not stored after it."""
    probe = store()
    outcome, claim = probe.claim(1, nonce=7, until_ns=2 << 40, now_ns=1 << 40, tag=11)
    assert outcome == W["CLAIM_MINE"]
    assert probe.purge(1, 11) == 0
    assert not probe.put(1, HEAD, b"old", area=1, claim=claim, tag=11)
    assert probe.get(1) is None


def test_writers_and_readers_of_several_processes() -> None:
    """A log of 512 KiB is written round hundreds of times; no reader ever gets a byte of another answer."""
    probe = _native.ProbeCache(make_memory(cache=1 << 19)[0])
    found = together(
        partial(_native.probe_race_cache_write, probe, 4000, 8, 1),
        partial(_native.probe_race_cache_write, probe, 4000, 8, 2),
        partial(_native.probe_race_cache_read, probe, 20_000, 8),
    )
    whole, torn, _ = found[2]
    assert torn == 0
    assert whole > 0
    assert found[0] > 0
    assert found[1] > 0


def test_each_key_is_claimed_once() -> None:
    keys = 500
    probe = _native.ProbeCache(make_memory(cache=1 << 22)[0])
    meeting = _native.ProbeTable(page())
    mine = together(
        *(partial(_native.probe_race_cache_claim, probe, meeting, PARTIES, keys, n + 1) for n in range(PARTIES))
    )
    assert -1 not in mine
    assert sum(mine) == keys


def _write_forever(probe: _native.ProbeCache) -> None:
    while True:
        _native.probe_race_cache_write(probe, 1000, 8, 3)


def test_a_writer_that_is_killed_leaves_nothing_broken() -> None:
    probe = _native.ProbeCache(make_memory(cache=1 << 19)[0])
    fork = multiprocessing.get_context("fork")
    for _ in range(5):
        child = fork.Process(target=_write_forever, args=(probe,))
        child.start()
        before = probe.tail
        end = time.monotonic() + 20
        while probe.tail - before < 1 << 20 and time.monotonic() < end:
            time.sleep(0.001)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        for n in range(1, 9):
            found = probe.get(n)
            assert found is None or len(set(found[1])) <= 1
        # Its locks are broken after their time, its unfinished run is overwritten like any other.
        now = (1 << 40) + (1 << 30)
        for n in range(1, 9):
            assert probe.put(n, HEAD, bytes([n]) * 1000, now_ns=now)
            assert probe.get(n) == (HEAD, bytes([n]) * 1000)


def test_a_writer_that_dies_before_it_says_so_is_never_seen() -> None:
    probe = store()
    assert probe.write_only(1, HEAD, b"half a story") > 0
    assert probe.get(1) is None
    _, word = probe.claim(1, 7, SOON, NOW)
    assert probe.claim(1, 8, SOON, NOW)[0] == W["CLAIM_TAKEN"]
    assert probe.claim(1, 8, SOON + (1 << 40), SOON + (2 << 30))[0] == W["CLAIM_MINE"]  # its claim lapsed
    assert not probe.put(1, HEAD, b"x", claim=word)

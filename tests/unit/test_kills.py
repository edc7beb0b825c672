"""Processes killed at random points of what they share: after each kill the survivors find nothing torn, nothing of
another's, and no lock that stays."""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import random
import signal
import struct
import time
from collections.abc import Callable, Iterator

from scrubber import _native
from tests.unit.regions import make_memory
from tests.unit.test_blocks import table

KILLS = 60
TRIES = 10
LOCK_STALE_NS = 6_000_000  # a little more than ext/lock.pxd says
T = 10**15
SOURCES, PLACES = 8, 4  # that probe_race_blocks_write blocks, and room for them: they displace each other


@contextlib.contextmanager
def forked(job: Callable[[], object]) -> Iterator[int]:
    """A process that does a job until it is killed."""
    child = multiprocessing.get_context("fork").Process(target=job, daemon=True)
    child.start()
    try:
        assert child.pid is not None
        yield child.pid
    finally:
        child.kill()
        child.join()


def killed_again_and_again(job: Callable[[int], object]) -> Iterator[int]:
    """Starts the job, kills it within milliseconds, and yields; once for each of KILLS."""
    random_ = random.Random(9)
    for turn in range(KILLS):
        with forked(lambda turn=turn: job(turn)) as pid:  # type: ignore[misc]
            time.sleep(random_.uniform(0.001, 0.01))
            os.kill(pid, signal.SIGKILL)
        yield turn


def test_no_cell_has_the_time_of_another_key() -> None:
    memory, keys = mmap.mmap(-1, 2 * 128), 64
    limiter = _native.ProbeLimiter(memory)
    with forked(lambda: _native.probe_hammer_limiter(limiter, keys, 77, T)):  # one that lives on
        for _ in killed_again_and_again(lambda turn: _native.probe_hammer_limiter(limiter, keys, 1 + turn, T)):
            pass
    cells = list(struct.iter_unpack("<QQ", memory[:]))
    assert sum(key != 0 for key, _ in cells) > 10
    for key, tat_ns in cells:
        if key == 0:  # given back
            continue
        assert 0 < tat_ns - T <= 5 * (1000 + key)
        assert (tat_ns - T) % (1000 + key) == 0, "the time of another key"


def test_no_block_is_torn_and_no_lock_stays() -> None:
    now = time.monotonic_ns()
    blocks = table(1)
    for _ in killed_again_and_again(lambda _: _native.probe_race_blocks_write(blocks, 1 << 40, now)):
        _, torn = _native.probe_race_blocks_read(blocks, 100, now)
        assert torn == 0
        later = now + 500
        for _ in range(TRIES):
            if len(blocks.listed(now)) == PLACES:
                break
            _native.probe_race_blocks_write(blocks, SOURCES, later)
            later += LOCK_STALE_NS  # a lock of the dead is broken after its time
        assert len(blocks.listed(now)) == PLACES


def test_no_record_of_a_killed_writer_is_torn() -> None:
    ring = _native.ProbeRing(mmap.mmap(-1, 128 + 131072))
    seen = 0
    for _ in killed_again_and_again(lambda _: _native.probe_race_ring_write(ring, 1 << 31)):
        while (record := ring.read()) is not None:
            assert record is not False, "what lay there made no sense"
            words = {word for (word,) in struct.iter_unpack("<I", record[1])}
            (number,) = words
            assert len(record[1]) == 4 * (1 + number % 200)
            seen += 1
    assert seen > KILLS


def test_what_a_dead_worker_counted_goes_with_its_slot() -> None:
    dead, alive = make_memory(slots=2)
    keys = 16
    for key in range(1, keys + 1):
        for _ in range(key):
            _native.probe_counts_add(alive, key, 1)
    for turn in killed_again_and_again(lambda turn: _native.probe_hammer_counts(dead, keys, 1 + turn)):
        sums = [_native.probe_counts_sum(alive, key) for key in range(1, keys + 1)]
        assert all(key <= found <= key + 2 for key, found in enumerate(sums, 1)), (turn, sums)
        alive.zero_slot(0)
        assert [_native.probe_counts_sum(alive, key) for key in range(1, keys + 1)] == list(range(1, keys + 1))

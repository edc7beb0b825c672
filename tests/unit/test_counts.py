"""Counts by key: a slot a worker, summed, given back by zeroing a dead worker's slot."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scrubber import _native

KINDS = ("control", "limiter", "ladder", "known", "blocks", "totals", "gauges", "rings", "cache", "origins")
WORKERS = 3
FULL = 2**32 - 1
add, total = _native.probe_counts_add, _native.probe_counts_sum


@pytest.fixture
def workers() -> Iterator[list[_native.Memory]]:
    fds = {kind: os.memfd_create(kind, os.MFD_CLOEXEC) for kind in KINDS}
    for kind, fd in fds.items():
        _native.region_init(fd, kind, 8, WORKERS)
    yield [_native.Memory(fds, slot) for slot in range(-1, WORKERS)]
    for fd in fds.values():
        os.close(fd)


def test_sums_over_workers_and_gives_back(workers: list[_native.Memory]) -> None:
    watcher, *slots = workers
    assert [add(slot, 5, 2) for slot in slots] == [2, 4, 6]
    assert add(slots[0], 5, -1) == 5
    watcher.zero_slot(1)
    assert total(watcher, 5) == 3
    assert add(watcher, 5, 1) == 3, "who has no slot only reads"


def test_never_below_nothing(workers: list[_native.Memory]) -> None:
    worker = workers[1]
    assert add(worker, 5, -3) == 0
    assert add(worker, 5, 1) == 1
    assert add(worker, 5, -3) == 0


def test_full_bucket_is_said_and_free_cells_are_taken_over(workers: list[_native.Memory]) -> None:
    worker = workers[1]
    assert [add(worker, key, 1) for key in range(1, 9)] == [1] * 8
    assert add(worker, 9, 1) == FULL
    assert total(worker, 9) == 0
    assert add(worker, 3, 1) == 2, "keys that have a cell go on"
    assert add(worker, 4, -1) == 0
    assert add(worker, 9, 1) == 1
    assert total(worker, 4) == 0


def test_key_zero_and_the_largest_number(workers: list[_native.Memory]) -> None:
    worker = workers[1]
    assert add(worker, 0, 2**31 - 1) == add(worker, 1, 0) == 2**31 - 1
    assert add(worker, 0, 2**31 - 1) == FULL - 1
    assert add(worker, 0, 5) == FULL - 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, WORKERS - 1), st.integers(1, 8), st.integers(-3, 3)), max_size=60))
def test_is_a_counter(workers: list[_native.Memory], steps: list[tuple[int, int, int]]) -> None:
    watcher, *slots = workers
    for slot in range(WORKERS):
        watcher.zero_slot(slot)
    counts: Counter[tuple[int, int]] = Counter()
    for slot, key, delta in steps:
        counts[slot, key] = max(0, counts[slot, key] + delta)
        assert add(slots[slot], key, delta) == sum(counts[s, key] for s in range(WORKERS))

"""The ring: order, wrapping, room kept for acts, hostile numbers, and a reader beside a writer in another process."""

from __future__ import annotations

import mmap
import random
import struct
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrubber import _native
from tests.unit.race import together

LINE, ACT = 1, 2
HEADER, SIZE, RESERVE = 128, 131072, 65536
HEAD, TAIL = 0, 64


def ring() -> tuple[mmap.mmap, _native.ProbeRing]:
    memory = mmap.mmap(-1, HEADER + SIZE)
    return memory, _native.ProbeRing(memory)


def poke(memory: mmap.mmap, at: int, value: int) -> None:
    struct.pack_into("<Q", memory, at, value % 2**64)


def test_records_come_back_as_they_were_and_in_order() -> None:
    _, r = ring()
    records = [(LINE, b""), (ACT, b"a"), (LINE, b"12345678"), (ACT, bytes(16384))]
    assert all(r.write(*record) for record in records)
    assert [r.read() for _ in range(5)] == [*records, None]


def test_lines_leave_room_for_acts() -> None:
    _, r = ring()
    lines = 0
    while r.write(LINE, bytes(1000)):
        lines += 1
    assert lines == (SIZE - RESERVE) // 1008
    assert not r.has_room(LINE, 1000)
    acts = 0
    while r.write(ACT, bytes(1000)):
        acts += 1
    assert acts >= RESERVE // 1008
    assert not r.has_room(ACT, 1000)
    assert sum(bool(r.read()) for _ in range(lines + acts)) == lines + acts


def test_too_long_is_refused() -> None:
    _, r = ring()
    assert not r.write(ACT, bytes(16385))
    assert not r.has_room(ACT, 2**32 - 1)
    assert r.read() is None


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([LINE, ACT]), st.integers(0, 16384)), max_size=200))
def test_is_a_queue(steps: list[tuple[bool, int, int]]) -> None:
    _, r = ring()
    queue: deque[tuple[int, bytes]] = deque()
    for n, (write, kind, length) in enumerate(steps):
        if write:
            record = (kind, random.Random(n).randbytes(length))
            room = r.has_room(kind, length)
            assert r.write(*record) == room
            if room:
                queue.append(record)
        else:
            assert r.read() == (queue.popleft() if queue else None)
    assert [r.read() for _ in range(len(queue) + 1)] == [*queue, None]


@pytest.mark.parametrize(
    ("at", "value"),
    [(HEAD, 2**63), (HEAD, 2**64 - 1), (HEAD, SIZE + 8), (TAIL, 3), (TAIL, 24), (TAIL, 2**64 - 8), (HEADER, 2**32 - 1),
     (HEADER, 16384), (HEADER, 7 << 32)],
    ids=str,
)
def test_hostile_numbers_are_skipped(at: int, value: int) -> None:
    memory, r = ring()
    assert r.write(LINE, b"x")
    poke(memory, at, value)
    assert r.read() is False
    assert r.read() is None
    assert r.write(ACT, b"after")
    assert r.read() == (ACT, b"after")


def test_a_head_that_is_not_aligned_loses_no_later_record() -> None:
    memory, r = ring()
    poke(memory, HEAD, 5)
    assert r.read() is None
    assert r.write(ACT, b"a")
    assert r.read() == (ACT, b"a")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(min_size=64, max_size=64))
def test_any_memory_is_survived(head: int, tail: int, noise: bytes) -> None:
    memory, r = ring()
    memory[HEADER:] = noise * (SIZE // 64)
    poke(memory, HEAD, head)
    poke(memory, TAIL, tail)
    for _ in range(SIZE // 8 + 2):
        r.write(LINE, noise)
        if r.read() is None:
            break
    while r.read() is not None:
        pass
    assert r.write(ACT, b"after")
    assert r.read() == (ACT, b"after")


def test_no_record_is_torn_between_processes() -> None:
    memory, records = mmap.mmap(-1, HEADER + SIZE), 200_000
    written, seen = together(
        lambda: _native.probe_race_ring_write(_native.ProbeRing(memory), records),
        lambda: _native.probe_race_ring_read(_native.ProbeRing(memory), records),
    )
    assert (written, *seen) == (records, records, 0, 0), "(written, read, torn, skipped)"

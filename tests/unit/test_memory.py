"""Regions made and mapped, headers that lie, and class Memory over real memfds."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator

import pytest

from scrubber import _native

CAPACITIES = {
    "control": 1, "limiter": 1000, "ladder": 100, "known": 100, "blocks": 100, "totals": 1, "gauges": 100, "rings": 1,
    "cache": 100,
    "origins": 1,
}  # fmt: skip
WORKERS = 2
MINUTE = 60 * 10**9
PUT = {"ttl_ns": MINUTE, "ttl_max_ns": 60 * MINUTE, "blocks_max": 50, "rule_id": 0xABC}


def make(kind: str, capacity: int = 100, slots: int = WORKERS) -> int:
    fd = os.memfd_create(kind, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    _native.region_init(fd, kind, capacity, slots)
    return fd


@pytest.fixture
def fds() -> Iterator[dict[str, int]]:
    made = {kind: make(kind, capacity) for kind, capacity in CAPACITIES.items()}
    yield made
    for fd in made.values():
        os.close(fd)


def test_what_lies_in_shared_memory_has_its_size() -> None:
    assert _native.probe_sizes() == {
        "Cell": 16, "LadderEntry": 32, "KnownEntry": 64, "BlockEntry": 128, "BlocksHead": 64, "CountCell": 16,
        "RingHeader": 128, "AreaState": 64, "RegionHeader": 48,
    }  # fmt: skip


@pytest.mark.parametrize("kind", CAPACITIES)
def test_region_has_the_size_it_said(kind: str) -> None:
    fd = make(kind, 1000)
    try:
        size = os.fstat(fd).st_size
        assert size == _native.region_bytes(kind, 1000, WORKERS)
        assert size % 4096 == 0
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(fd, size // 2)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("kind", "capacity", "slots"),
    [("cells", 1, 1), ("limiter", -1, 1), ("limiter", 2**40, 1), ("rings", 1, 0), ("rings", 1, 65), ("totals", 1, -1)],
)
def test_sizes_beyond_reason_are_refused(kind: str, capacity: int, slots: int) -> None:
    with pytest.raises(_native.RegionRefused):
        _native.region_bytes(kind, capacity, slots)


def test_secrets_differ() -> None:
    secrets = set()
    for _ in range(4):
        fd = make("control")
        secrets.add(os.pread(fd, 16, 4096))
        os.close(fd)
    assert len(secrets) == 4


@pytest.mark.parametrize("kind", CAPACITIES)
@pytest.mark.parametrize(
    ("at", "form"), [(0, "<Q"), (8, "<I"), (12, "<I"), (16, "<Q"), (24, "<Q"), (32, "<Q"), (40, "<I")]
)
def test_a_header_that_lies_is_refused(fds: dict[str, int], kind: str, at: int, form: str) -> None:
    size = struct.calcsize(form)
    (value,) = struct.unpack(form, os.pread(fds[kind], size, at))
    for lie in (value + 1, value ^ 1 << (8 * size - 1), value * 2 + 1):
        os.pwrite(fds[kind], struct.pack(form, lie % 2 ** (8 * size)), at)
        with pytest.raises(_native.RegionRefused, match=kind):
            _native.Memory(fds, 0)


def test_wrong_files_are_refused(fds: dict[str, int]) -> None:
    with pytest.raises(_native.RegionRefused, match="missing: rings"):
        _native.Memory({kind: fd for kind, fd in fds.items() if kind != "rings"}, 0)
    with pytest.raises(_native.RegionRefused, match="exchanged"):
        _native.Memory({**fds, "limiter": fds["ladder"]}, 0)
    with pytest.raises(_native.RegionRefused, match="slot"):
        _native.Memory(fds, WORKERS)
    empty = os.memfd_create("empty")
    with pytest.raises(_native.RegionRefused, match="too short"):
        _native.Memory({**fds, "known": empty}, 0)
    os.ftruncate(empty, 100)
    with pytest.raises(_native.RegionRefused, match="another size"):
        _native.region_init(empty, "known", 100, 1)
    os.close(empty)


def test_totals_are_summed_over_workers(fds: dict[str, int]) -> None:
    for slot in range(WORKERS):
        _native.probe_totals_add(_native.Memory(fds, slot), 7, 10 + slot)
    totals = _native.Memory(fds, -1).totals([7, 8])
    assert totals["accepted"] == 21
    assert totals["areas"][7]["requests"] == 21
    assert list(totals["areas"][7]["verdicts"]) == [0, 0, 0, 0, 21, 0]
    assert totals["areas"][8]["requests"] == 0
    with pytest.raises(IndexError):
        _native.Memory(fds, -1).totals([256])


def test_beat_and_zeroing(fds: dict[str, int]) -> None:
    worker, watcher = _native.Memory(fds, 1), _native.Memory(fds, -1)
    worker.beat()
    _native.probe_counts_add(worker, 9, 3)
    assert watcher.gauges(1)["pid"] == os.getpid()
    offset, slot_bytes = watcher.gauges_layout()
    (beat,) = struct.unpack("<Q", os.pread(fds["gauges"], 8, offset + slot_bytes))
    assert beat == watcher.gauges(1)["beat_ns"] > 0
    watcher.zero_slot(1)
    assert watcher.gauges(1)["pid"] == 0
    assert _native.probe_counts_sum(watcher, 9) == 0
    with pytest.raises(IndexError):
        watcher.gauges(WORKERS)
    with pytest.raises(RuntimeError):
        watcher.beat()


def test_rings_are_read_by_slot(fds: dict[str, int]) -> None:
    worker, watcher = _native.Memory(fds, 1), _native.Memory(fds, -1)
    assert _native.probe_ring_write(worker, 1, b"line")
    assert _native.probe_ring_write(worker, 2, b"act")
    assert watcher.ring_read(0, 10**6) == []
    assert watcher.ring_read(1, 1) == [(1, b"line\n", 1)]
    assert watcher.ring_read(1, 10**6) == [(2, b"act", 1)]
    for kind, payload in ((1, b"a\n"), (1, b""), (1, b"b"), (2, b"x"), (2, b"y"), (1, b"c\n")):
        assert _native.probe_ring_write(worker, kind, payload)
    assert watcher.ring_read(1, 10**6) == [(1, b"a\n\nb\n", 3), (2, b"x", 1), (2, b"y", 1), (1, b"c\n", 1)]
    offset = 4096 + (os.fstat(fds["rings"]).st_size - 4096) // 2
    os.pwrite(fds["rings"], struct.pack("<Q", 2**40), offset)
    assert watcher.ring_read(1, 10**6) == []
    assert watcher.ring_resyncs == 1


@pytest.mark.parametrize(
    ("kind", "source", "told"),
    [
        ("client", "192.0.2.1", "192.0.2.1"),
        ("client", "::ffff:192.0.2.1", "192.0.2.1"),
        ("client", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("client", "2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ("prefix", "192.0.2.77/24", "192.0.2.0/24"),
        ("prefix", "2001:db8:1:2::/48", "2001:db8:1::/48"),
        ("fingerprint", "00000000deadbeef", "00000000deadbeef"),
        ("account", "123456789abcdef0", "123456789abcdef0"),
        ("pair", "ffffffffffffffff", "ffffffffffffffff"),
    ],
)
def test_blocks_are_made_listed_and_lifted(fds: dict[str, int], kind: str, source: str, told: str) -> None:
    worker, watcher = _native.Memory(fds, 0), _native.Memory(fds, -1)
    assert watcher.block_put(kind, source, [3, 255], **PUT) == "new"
    assert watcher.block_put(kind, source, [3, 255], **{**PUT, "ttl_ns": 2 * MINUTE}) == "extended"
    (block,) = worker.blocks()
    assert (block["kind"], block["source"], block["areas"]) == (kind, told, [3, 255])
    assert block["rule_id"] == f"{0xABC:016x}"
    assert len(block["case_id"]) == 16
    assert block["expires_ns"] > block["since_ns"] + MINUTE
    assert watcher.block_remove(kind, told)
    assert not watcher.block_remove(kind, told)
    assert worker.blocks() == []


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("client", "192.0.2.300"), ("client", "192.0.2.0/24"), ("client", "2001:db8::/48"), ("prefix", "192.0.2.1"),
        ("prefix", "192.0.2.0/33"), ("prefix", "::/129"), ("prefix", "192.0.2.0/-1"), ("prefix", "192.0.2.0/²"),
        ("account", "xyz"), ("account", "123"), ("host", "a"),
    ],
)  # fmt: skip
def test_what_is_no_source_is_refused(fds: dict[str, int], kind: str, source: str) -> None:
    with pytest.raises(ValueError, match=r"expected|one of|prefix length"):
        _native.Memory(fds, -1).block_put(kind, source, [1], **PUT)


@pytest.mark.parametrize("areas", [[256], [-1]])
def test_what_is_no_area_is_refused(fds: dict[str, int], areas: list[int]) -> None:
    with pytest.raises(ValueError, match="none of 256"):
        _native.Memory(fds, -1).block_put("client", "192.0.2.1", areas, **PUT)


def test_sweep_counts_blocked_known_clients(fds: dict[str, int]) -> None:
    memory = _native.Memory(fds, 0)
    begin = time.monotonic_ns() - 20 * 10**9
    address = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 9])
    for i in range(10):
        _native.probe_known_note(memory, 5, address, True, begin + i * 10**9)
    assert memory.area_state(5)["known_total"] == 1
    memory.block_put("client", "192.0.2.9", [5, 6], **PUT)
    memory.block_put("client", "192.0.2.10", [5], **PUT)
    assert memory.area_state(5)["known_blocked"] == 1
    assert memory.area_state(6)["known_blocked"] == 0
    memory.sweep()
    assert memory.area_state(5)["known_blocked"] == 1
    memory.block_remove("client", "192.0.2.9")
    assert memory.area_state(5)["known_blocked"] == 0

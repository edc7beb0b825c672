"""The block table: look-ups, areas, expiry, the cumulative limit, full tables, torn entries, several processes."""

from __future__ import annotations

import ipaddress
import mmap
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrubber import _native
from tests.unit.race import PARTIES, page, together

S = 10**9
T = 10**6 * S
HEAD, BUCKET_BYTES = 64, 512
CLIENT, PREFIX, FINGERPRINT, ACCOUNT, PAIR = 1, 2, 3, 4, 5
NEW, EXTENDED, FULL, TTL, BUSY, NO_SOURCE = 1, 2, 3, 4, 5, 6
Source = tuple[int, int, bytes]


def table(buckets: int = 64) -> _native.ProbeBlocks:
    return _native.ProbeBlocks(mmap.mmap(-1, HEAD + buckets * BUCKET_BYTES))


def raw(text: str) -> bytes:
    address = ipaddress.ip_address(text)
    return bytes(10) + b"\xff\xff" + address.packed if address.version == 4 else address.packed


def client(text: str) -> Source:
    return CLIENT, 0, raw(text)


def prefix(text: str) -> Source:
    network = ipaddress.ip_network(text)
    return PREFIX, network.prefixlen + (96 if network.version == 4 else 0), raw(str(network.network_address))


def test_a_client_is_blocked_until_it_expires() -> None:
    blocks = table()
    assert blocks.put(client("192.0.2.1"), 1, T + S, T, case_id=7, rule_id=8) == NEW
    found = blocks.match(raw("192.0.2.1"), T + S - 1)
    assert (found["case_id"], found["rule_id"], found["since_ns"], found["expires_ns"]) == (7, 8, T, T + S)
    assert blocks.match(raw("192.0.2.1"), T + S) is None
    assert blocks.match(raw("192.0.2.2"), T) is None


def test_an_ipv6_client_is_its_64() -> None:
    blocks = table()
    assert blocks.put(client("2001:db8::1"), 1, T + S, T) == NEW
    assert blocks.match(raw("2001:db8::ffff:1:2:3"), T)
    assert blocks.match(raw("2001:db8:0:1::1"), T) is None


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
        ("0.0.0.0/0", "203.0.113.1", "2001:db8::1"),
        ("192.0.2.1/32", "192.0.2.1", "192.0.2.2"),
        ("2001:db8:1::/48", "2001:db8:1:ffff::1", "2001:db8:2::"),
        ("2001:db8::1/128", "2001:db8::1", "2001:db8::2"),
        ("::/0", "2001:db8::1", "192.0.2.1"),
        ("::/64", "::1", "192.0.2.1"),
    ],
)
def test_prefixes_hold_what_is_in_them(text: str, inside: str, outside: str) -> None:
    blocks = table()
    assert blocks.put(prefix(text), 1, T + S, T) == NEW
    assert blocks.match(raw(inside), T)["kind"] == PREFIX
    assert blocks.match(raw(outside), T) is None


def test_the_narrowest_block_answers() -> None:
    blocks = table()
    for n, source in enumerate([prefix("10.0.0.0/8"), prefix("10.1.0.0/16"), client("10.1.1.1")]):
        blocks.put(source, 1, T + S, T, case_id=n)
    cases = [blocks.match(raw(text), T)["case_id"] for text in ("10.2.2.2", "10.1.1.2", "10.1.1.1")]
    assert cases == [0, 1, 2]


def test_keys_are_no_addresses() -> None:
    blocks = table()
    key = (12345).to_bytes(8, "little") + bytes(8)
    assert blocks.put((ACCOUNT, 0, key), 1, T + S, T) == NEW
    assert blocks.find_key(ACCOUNT, 12345, T)
    assert blocks.find_key(PAIR, 12345, T) is None
    assert blocks.find_key(ACCOUNT, 12346, T) is None
    assert blocks.find_key(200, 12345, T) is None
    assert blocks.match(key, T) is None


def test_a_block_binds_its_areas_only() -> None:
    blocks, address = table(), raw("192.0.2.1")
    a, b, c = 1 << 3, 1 << 70, 1 << 255
    assert blocks.put(client("192.0.2.1"), a, T + S, T, case_id=1) == NEW
    assert blocks.put(client("192.0.2.1"), b, T + 2 * S, T, case_id=2) == NEW
    assert blocks.put(prefix("192.0.2.0/24"), c, T + S, T, case_id=3) == NEW
    assert [blocks.match(address, T, want)["case_id"] for want in (a, b, c)] == [1, 2, 3]
    assert blocks.match(address, T, 1 << 4) is None
    assert blocks.match(address, T, a | b, True), "two mandates together"
    assert blocks.match(address, T, a | b | c, True)
    assert blocks.match(address, T, a | b | c | 1, True) is None
    assert blocks.match(address, T, a | 1 << 4), "any of them"
    assert blocks.match(address, T + S, a | b, True) is None, "one of them expired"
    assert blocks.match(address, T, 0, True) is None
    assert blocks.match(address, T, 0) is None


def test_extending_is_bounded_from_the_beginning() -> None:
    blocks, source = table(), client("192.0.2.1")
    limit = {"ttl_max_ns": 10 * S}
    assert blocks.put(source, 1, T + 4 * S, T, case_id=1, **limit) == NEW
    assert blocks.put(source, 1, T + 7 * S, T + 3 * S, case_id=2, **limit) == EXTENDED
    assert blocks.put(source, 1, T + 5 * S, T + 4 * S, **limit) == EXTENDED, "never shorter"
    assert blocks.match(raw("192.0.2.1"), T + 6 * S)["case_id"] == 1
    assert blocks.put(source, 1, T + 16 * S, T + 6 * S, **limit) == EXTENDED
    assert blocks.match(raw("192.0.2.1"), T + 6 * S)["expires_ns"] == T + 10 * S
    assert blocks.put(source, 1, T + 16 * S, T + 7 * S, **limit) == TTL
    assert blocks.put(source, 1, T + 14 * S, T + 10 * S, case_id=3, **limit) == NEW, "counts from its own start"
    found = blocks.match(raw("192.0.2.1"), T + 10 * S)
    assert (found["case_id"], found["first_ns"], found["hits"]) == (3, T + 10 * S, 0)
    assert len(blocks.listed(T + 10 * S)) == 1


def test_a_new_block_is_cut_to_the_limit() -> None:
    blocks = table()
    assert blocks.put(client("192.0.2.1"), 1, T + 99 * S, T, ttl_max_ns=S) == NEW
    assert blocks.match(raw("192.0.2.1"), T)["expires_ns"] == T + S
    assert blocks.put(client("192.0.2.2"), 1, T + 99 * S, T, ttl_max_ns=0) == TTL
    assert blocks.put(client("192.0.2.2"), 1, T, T) == TTL


@pytest.mark.parametrize(
    ("source", "areas"),
    [((0, 0, bytes(16)), 1), ((6, 0, bytes(16)), 1), ((255, 0, bytes(16)), 1), ((PREFIX, 129, bytes(16)), 1),
     ((PREFIX, 95, raw("192.0.2.0")), 1), ((CLIENT, 0, raw("192.0.2.1")), 0)],
)  # fmt: skip
def test_what_is_no_source_is_refused(source: Source, areas: int) -> None:
    blocks = table()
    assert blocks.put(source, areas, T + S, T) == NO_SOURCE
    assert blocks.listed(T) == []


def test_no_more_than_blocks_max() -> None:
    blocks = table()
    assert [blocks.put(client(f"192.0.2.{n}"), 1, T + S, T, blocks_max=3) for n in range(5)] == [NEW] * 3 + [FULL] * 2
    assert blocks.put(client("192.0.2.0"), 1, T + 2 * S, T, blocks_max=3) == EXTENDED
    blocks.sweep(T + S)
    assert blocks.count == 1
    assert blocks.put(client("192.0.2.9"), 1, T + 2 * S, T + S, blocks_max=3) == NEW


def test_a_full_bucket_loses_what_expires_first() -> None:
    blocks = table(1)
    for n in range(4):
        blocks.put(client(f"192.0.2.{n}"), 1, T + (10 + n) * S, T)
    assert blocks.put(client("192.0.2.9"), 1, T + 5 * S, T) == FULL, "of these it would be the least harmful"
    assert blocks.put(client("192.0.2.9"), 1, T + 12 * S, T) == NEW
    found = [bool(blocks.match(raw(f"192.0.2.{n}"), T)) for n in (0, 1, 2, 3, 9)]
    assert found == [False, True, True, True, True]
    assert blocks.count == 4


def test_removed_in_all_areas() -> None:
    blocks = table()
    for areas in (1, 2):
        blocks.put(client("2001:db8::1"), areas, T + S, T)
    assert blocks.remove(client("2001:db8::2"), T)
    assert blocks.match(raw("2001:db8::1"), T) is None
    assert not blocks.remove(client("2001:db8::1"), T)
    assert blocks.count == 0


def test_hits_are_counted_and_kept_by_an_extension() -> None:
    blocks = table()
    blocks.put(client("192.0.2.1"), 1, T + S, T)
    for _ in range(3):
        blocks.hit(raw("192.0.2.1"), T)
    blocks.hit(raw("192.0.2.2"), T)
    assert blocks.match(raw("192.0.2.1"), T)["hits"] == 3
    blocks.put(client("192.0.2.1"), 1, T + 2 * S, T)
    assert blocks.match(raw("192.0.2.1"), T)["hits"] == 3


def test_sweep_says_what_is_in_use() -> None:
    blocks = table()
    blocks.put(client("192.0.2.1"), 1, T + 3 * S, T)
    blocks.put(prefix("192.0.2.0/24"), 1, T + 2 * S, T)
    blocks.put(prefix("2001:db8::1/128"), 1, T + S, T)
    lengths = [1 << CLIENT | 1 << PREFIX, 0, 1 << 120 - 64, 1]
    assert blocks.kinds == lengths
    blocks.sweep(T + S)
    assert (blocks.kinds, blocks.count) == ([1 << CLIENT | 1 << PREFIX, 0, 1 << 120 - 64, 0], 2)
    blocks.sweep(T + 2 * S)
    assert (blocks.kinds, blocks.count) == ([1 << CLIENT, 0, 0, 0], 1)


SOURCES = [client("10.1.1.1"), client("10.1.1.2"), client("2001:db8::1"), prefix("10.1.1.0/24"), prefix("10.0.0.0/8"),
           prefix("2001:db8::/48")]  # fmt: skip
ASKED = ["10.1.1.1", "10.1.1.2", "10.1.1.3", "10.9.9.9", "11.0.0.1", "2001:db8::9", "2001:db8:0:1::1", "2001:db9::"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SOURCES), st.integers(1, 3), st.integers(0, 9), st.booleans()), max_size=25))
def test_is_a_table(steps: list[tuple[Source, int, int, bool]]) -> None:
    blocks, now = table(), T
    held: dict[tuple[Source, int], int] = {}
    for source, areas, ttl_s, put in steps:
        now += S
        if put and ttl_s:
            blocks.put(source, areas, now + ttl_s * S, now)
            held[source, areas] = max(held.get((source, areas), 0), now + ttl_s * S)
        elif put:
            blocks.sweep(now)
        else:
            blocks.remove(source, now)
            held = {name: expires for name, expires in held.items() if name[0] != source}
        held = {name: expires for name, expires in held.items() if expires > now}
        for text in ASKED:
            for want in (1, 2):
                expected = any(areas & want and _covers(source, raw(text)) for source, areas in held)
                assert bool(blocks.match(raw(text), now, want)) == expected
        assert len(blocks.listed(now)) == len(held)


def _covers(source: Source, address: bytes) -> bool:
    kind, plen, named = source
    if kind == CLIENT:
        plen = 128 if address.startswith(bytes(10) + b"\xff\xff") else 64
    shift = 128 - plen
    return int.from_bytes(named, "big") >> shift == int.from_bytes(address, "big") >> shift


@pytest.mark.parametrize("at", [4, 5, 8, 23, 24, 55, 56, 64, 72, 80, 88, 96, 112])
def test_an_altered_entry_blocks_nobody(at: int) -> None:
    memory = mmap.mmap(-1, HEAD + BUCKET_BYTES)
    blocks = _native.ProbeBlocks(memory)
    blocks.put(client("192.0.2.1"), 1, T + S, T)
    memory[HEAD + at] ^= 1
    assert blocks.listed(T) == []
    for text in ("192.0.2.1", "192.0.2.0"):
        assert blocks.match(raw(text), T) is None
    assert blocks.put(client("192.0.2.1"), 1, T + S, T) == NEW
    assert blocks.match(raw("192.0.2.1"), T)


def test_a_writer_that_died_leaves_no_block_and_no_lock() -> None:
    memory = mmap.mmap(-1, HEAD + BUCKET_BYTES)
    blocks = _native.ProbeBlocks(memory)
    blocks.put(client("192.0.2.1"), 1, T + S, T)
    struct.pack_into("<I", memory, HEAD, struct.unpack_from("<I", memory, HEAD)[0] | 1)
    struct.pack_into("<I", memory, HEAD + 120, (T >> 10 | 1) & 0xFFFFFFFF)
    assert blocks.match(raw("192.0.2.1"), T) is None
    assert blocks.put(client("192.0.2.1"), 1, T + S, T) == BUSY
    assert blocks.put(client("192.0.2.1"), 1, T + S, T + 6_000_000) == NEW
    assert blocks.match(raw("192.0.2.1"), T + 6_000_000)


@given(st.binary(min_size=64, max_size=64), st.binary(min_size=512, max_size=512), st.integers(0, 2**64 - 1))
def test_any_memory_is_survived(head: bytes, noise: bytes, now: int) -> None:
    memory = mmap.mmap(-1, HEAD + BUCKET_BYTES)
    memory[:] = head + noise
    blocks = _native.ProbeBlocks(memory)
    for address in (raw("192.0.2.1"), noise[8:24]):
        assert blocks.match(address, now) is None, "nobody can forge an entry without the secret"
    blocks.hit(raw("192.0.2.1"), now)
    blocks.remove(client("192.0.2.1"), now)
    blocks.put(client("192.0.2.1"), 1, now, now)
    blocks.sweep(now)
    assert blocks.count == 0


def test_no_entry_is_torn_between_processes() -> None:
    blocks, now = table(1), time.monotonic_ns()
    made, (found, torn) = together(
        lambda: _native.probe_race_blocks_write(blocks, 1_000_000, now),
        lambda: _native.probe_race_blocks_read(blocks, 1_000_000, now),
    )
    assert torn == 0
    assert made > 1000
    assert found > 1000


def test_two_writers_make_no_source_twice() -> None:
    blocks, meeting, now = table(1024), page(), time.monotonic_ns()

    def put() -> int:
        return _native.probe_race_blocks_new(blocks, _native.ProbeTable(meeting), PARTIES, 256, now)

    made = together(*[put] * PARTIES)
    assert -1 not in made, "a party was missing"
    assert sum(made) == 256
    assert len({entry["address"] for entry in blocks.listed(now)}) == len(blocks.listed(now)) == 256

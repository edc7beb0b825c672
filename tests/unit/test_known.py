"""Known clients: becoming one, losing it, rushes, shared addresses, fingerprints, proportion, eviction."""

from __future__ import annotations

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubber import _native
from tests.unit.race import PARTIES, page, together

S = 10**9
T = 10**6 * S
DAY, HOUR = 86400 * S, 3600 * S
BUCKET_BYTES = 256
PPM = 1_000_000


def table(buckets: int = 1) -> _native.ProbeKnown:
    return _native.ProbeKnown(mmap.mmap(-1, buckets * BUCKET_BYTES))


def befriend(known: _native.ProbeKnown, key: int, at: int = T, area: int = 0) -> None:
    """Eight good requests in four seconds."""
    for i in range(8):
        known.note(key, True, at + i * S // 2, 0, area)
    known.note(key, True, at + 4 * S, 0, area)


def test_becomes_known_by_requests_and_time() -> None:
    known = table()
    for i in range(100):
        known.note(5, True, T + i)
    assert not known.known(5, T + 100), "not in no time"
    known.note(5, True, T + 3 * S - 1)
    assert not known.known(5, T + 3 * S)
    known.note(5, True, T + 3 * S)
    assert known.known(5, T + 3 * S)
    assert known.state()["known_total"] == 1
    for i in range(7):
        known.note(6, True, T + i * S)
    assert not known.known(6, T + 7 * S), "not by seven"
    known.note(6, True, T + 7 * S)
    assert known.known(6, T + 7 * S)
    assert known.state()["known_total"] == 2


def test_misbehaviour_keeps_from_it_and_takes_it() -> None:
    known = table()
    known.note(5, False, T)
    for i in range(9):
        known.note(5, True, T + (i + 1) * S)
    assert not known.known(5, T + 9 * S), "one bad of nine good is more than a tenth"
    known.note(5, True, T + 10 * S)
    assert known.known(5, T + 10 * S)
    known.note(5, False, T + 11 * S)
    assert not known.known(5, T + 11 * S)
    assert known.was(5, T + 11 * S)
    assert known.state()["known_total"] == 1, "it stays among those seen healthy"
    befriend(known, 5, T + 20 * S)
    assert known.known(5, T + 25 * S)
    assert known.state()["known_total"] == 1


def test_a_long_past_buys_little() -> None:
    known = table()
    for i in range(5000):
        known.note(5, True, T + i * S // 100)
    bad = 0
    while known.known(5, T + 60 * S):
        known.note(5, False, T + 60 * S)
        bad += 1
    assert 40 <= bad <= 110


def test_nobody_becomes_known_in_a_rush() -> None:
    known = table(4)
    befriend(known, 1)
    known.note(2, True, T + 4 * S)
    known.rush(T + 5 * S)
    assert known.rushing(T + 5 * S)
    for i in range(20):
        known.note(2, True, T + (6 + i) * S)
        known.note(3, True, T + (6 + i) * S)
    known.rush(T + 26 * S)
    assert known.known(1, T + 27 * S), "who was known stays so"
    assert not known.known(2, T + 27 * S)
    assert known.rushing(T + 56 * S - 1)
    assert not known.rushing(T + 56 * S)
    known.note(2, True, T + 57 * S)
    known.note(3, True, T + 57 * S)
    assert known.known(2, T + 57 * S), "was here before it"
    assert not known.known(3, T + 57 * S), "came in it: starts anew"
    befriend(known, 3, T + 58 * S)
    assert known.known(3, T + 63 * S)


def test_rush_begins_anew_after_calm() -> None:
    known = table()
    known.rush(T)
    known.rush(T + 10 * S)
    assert (known.state()["rush_since_ns"], known.state()["rush_last_ns"]) == (T, T + 10 * S)
    known.rush(T + 10 * S - 1000)
    assert known.state()["rush_last_ns"] == T + 10 * S, "clocks of workers differ by a pass"
    known.rush(T + 41 * S)
    assert known.state()["rush_since_ns"] == T + 41 * S
    assert not known.rushing(T, 1), "another area is calm"


def test_forgotten_after_a_day_away() -> None:
    known = table()
    befriend(known, 5)
    assert known.known(5, T + 4 * S + DAY - 1)
    assert not known.known(5, T + 4 * S + DAY)
    assert not known.was(5, T + 4 * S + DAY)
    known.note(5, True, T + 5 * S + DAY)
    assert not known.known(5, T + 5 * S + DAY)
    assert known.state()["known_total"] == 0


def test_sweep_forgets_piece_by_piece() -> None:
    known = table(4)
    for key in range(1, 17):
        befriend(known, key, T, key % 3)
    assert [known.state(area)["known_total"] for area in range(3)] == [5, 6, 5]
    at, later = 0, T + 5 * S + DAY
    befriend(known, 3, later, 0)
    for _ in range(8):
        at = known.sweep(at, 2, later + 5 * S)
    assert at == 0
    assert sum(known.state(area)["known_total"] for area in range(3)) == 1
    assert known.known(3, later + 5 * S)


def test_shared_addresses_have_three_healthy_faces() -> None:
    known = table()
    for face in (10, 20, 30):
        assert not known.shared(5, T)
        for i in range(8):
            known.note(5, True, T + i, face)
    assert known.shared(5, T + 8)
    assert not known.shared(5, T + DAY + 8)
    assert not known.shared(6, T)


def test_faces_that_come_once_or_misbehave_make_nothing_shared() -> None:
    known = table()
    for face in range(1, 1000):
        known.note(5, True, T + face, face)
    assert not known.shared(5, T + 1000), "a client that changes its face each time"
    for face in (10, 20, 30):
        for i in range(20):
            known.note(6, False, T + i, face)
    assert not known.shared(6, T + 20)


def test_a_new_face_does_not_push_out_a_healthy_one() -> None:
    known = table()
    for face in (10, 20, 30):
        for i in range(8):
            known.note(5, True, T + i, face)
    for face in range(100, 400):
        known.note(5, True, T + face, face)
    assert known.shared(5, T + 500)


def test_fingerprints_count_their_known_clients_once() -> None:
    known = table(64)
    for key in range(1, 6):
        known.note_fingerprint(key, 1000, T)
        befriend(known, key)
        for _ in range(3):
            known.note_fingerprint(key, 1000 if key < 4 else 1001, T + 5 * S)
    assert (known.fingerprint_clients(1000), known.fingerprint_clients(1001)) == (3, 2)
    assert known.fingerprint_shared(1000)
    assert not known.fingerprint_shared(1002)
    assert not known.known(1000, T + 5 * S), "a fingerprint is no client"
    assert known.state()["known_total"] == 5
    known.note(1, False, T + 6 * S)
    assert known.fingerprint_clients(1000) == 2, "who misbehaves counts no more"
    befriend(known, 1, T + 7 * S)
    known.note_fingerprint(1, 1001, T + 12 * S)
    assert known.fingerprint_clients(1001) == 3, "and again when known again"


def test_shared_fingerprint_is_a_thousandth_of_known_clients() -> None:
    known = table(1024)
    for key in range(1, 2001):
        befriend(known, key * 7919)
    total = known.state()["known_total"]
    assert total > 1500
    needed = -(-total // 1000)
    for n, key in enumerate(range(1, needed + 1), start=1):
        known.note_fingerprint(key * 7919, 5, T + 5 * S)
        assert known.fingerprint_clients(5) == n
        assert known.fingerprint_shared(5) == (n >= needed)


def test_proportion_counts_who_was_seen_healthy() -> None:
    known = table(64)
    for key in range(1, 101):
        befriend(known, key)
    assert known.state()["known_total"] == 100
    for key in (1, 2):
        known.note(key, False, T + 5 * S)
        assert known.block_allowed(key, 20_000, T + 5 * S)
        known.mark_blocked(key, True, T + 5 * S)
    assert known.state()["known_blocked"] == 2
    assert not known.block_allowed(3, 20_000, T + 5 * S), "two in a hundred are"
    assert known.block_allowed(9999, 20_000, T + 5 * S), "a newcomer is nobody's share"
    known.mark_blocked(9999, True, T + 5 * S)
    known.mark_blocked(1, False, T + 5 * S)
    assert known.state()["known_blocked"] == 1
    assert known.block_allowed(3, 20_000, T + 5 * S)
    assert not known.block_allowed(3, 0, T + 5 * S)
    assert not known.block_allowed(3, 9_999, T + 5 * S)


def test_newcomers_displace_newcomers_not_known_clients() -> None:
    known = table()
    for key in (1, 2, 3):
        befriend(known, key)
    for key in range(10, 1000):
        known.note(key, True, T + 5 * S + key)
    assert [known.known(key, T + 6 * S) for key in (1, 2, 3)] == [True] * 3
    befriend(known, 4, T + 6 * S)
    befriend(known, 5, T + 11 * S)
    assert not known.known(5, T + 16 * S), "full of known clients"
    assert known.state()["known_total"] == 4


def test_known_clients_long_away_go_outside_a_rush_only() -> None:
    known, later = table(), T + 2 * HOUR
    for key in (1, 2, 3, 4):
        befriend(known, key, T + key)
    known.rush(later)
    known.note(5, True, later)
    assert known.known(1, later)
    known.note(5, True, later + HOUR)
    assert not known.known(1, later + HOUR)
    assert known.state()["known_total"] == 3


def test_the_right_area_loses_the_displaced_client() -> None:
    known, later = table(), T + 2 * HOUR
    for key in (1, 2, 3, 4):
        befriend(known, key, T + key, area=200 + key)
    known.note(5, True, later, 0, 7)
    assert [known.state(200 + key)["known_total"] for key in (1, 2, 3, 4)] == [0, 1, 1, 1]


def test_a_fingerprint_that_clients_have_is_not_displaced() -> None:
    known = table()
    befriend(known, 1)
    known.note_fingerprint(1, 77, T + 5 * S)
    for key in range(100, 300):
        known.note(key, True, T + 3 * HOUR + key)
    assert known.fingerprint_clients(77) == 1


@given(
    st.binary(min_size=BUCKET_BYTES, max_size=BUCKET_BYTES),
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.booleans(), st.integers(0, 65535)), max_size=20),
)
def test_any_memory_is_survived(noise: bytes, notes: list[tuple[int, bool, int]]) -> None:
    memory = mmap.mmap(-1, BUCKET_BYTES)
    memory[:] = noise
    known = _native.ProbeKnown(memory)
    keys = [int.from_bytes(noise[i : i + 8], "little") for i in range(0, BUCKET_BYTES, 64)] + [7]
    for now, good, face in notes:
        for key in keys:
            known.note(key, good, now, face)
            known.note_fingerprint(key, keys[0], now)
            known.block_allowed(key, PPM, now)
            known.mark_blocked(key, good, now)
            known.shared(key, now)
        known.sweep(now, now, now)
    assert known.state()["known_total"] <= 100
    assert known.state()["known_blocked"] <= 100


def test_processes_note_into_one_table() -> None:
    known, meeting, keys = table(64), page(), 250
    states = mmap.mmap(-1, 256 * 64)
    known.use_states(states)

    def visit() -> int:
        return _native.probe_race_known(known, _native.ProbeTable(meeting), PARTIES, keys)

    assert -1 not in together(*[visit] * PARTIES), "a party was missing"
    assert known.state()["known_total"] == keys, "each became known once"
    assert all(known.known(key, 9 * S) for key in range(1, keys + 1))


@pytest.mark.parametrize("key", [0, 1])
def test_key_zero_is_a_key(key: int) -> None:
    known = table()
    befriend(known, 0)
    assert known.known(key, T + 5 * S)

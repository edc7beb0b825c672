"""Blocks looked after: extended while they are met, lifted when nobody is there, and never without a probe."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scrubber.control.tend import PROBES_MAX, Tender
from scrubber.enforce.net import net_of

S = 1_000_000_000
A, B = net_of("198.51.100.1"), net_of("198.51.100.2")


def test_who_still_sends_is_extended_once_for_each_end() -> None:
    tender = Tender(0)
    tender.dropped(A, 600 * S, 0)
    tender.dropped(B, 600 * S, 0)
    assert tender.counted(A, 5, 500 * S) == 0  # not near its end
    assert tender.counted(A, 5, 550 * S) == 0  # nothing came since
    assert tender.counted(A, 9, 551 * S) == 600 * S
    assert tender.counted(A, 10, 552 * S) == 0
    tender.dropped(A, 1200 * S, 553 * S)
    assert tender.counted(A, 11, 554 * S) == 0
    assert tender.counted(A, 12, 1190 * S) == 600 * S  # as long as it was at first
    tender.gone([A])
    assert tender.counted(A, 13, 1191 * S) == 0


def test_of_a_short_one_the_last_seconds_count() -> None:
    tender = Tender(0)
    tender.dropped(A, 4 * S, 0)
    assert tender.counted(A, 1, S) == 0
    assert tender.counted(A, 2, 2 * S) == 4 * S


def test_where_counts_come_rarely_two_of_them_are_in_time() -> None:
    tender = Tender(0)
    tender.counts_come(10 * S)
    tender.dropped(A, 60 * S, 0)
    assert tender.counted(A, 1, 34 * S) == 0
    assert tender.counted(A, 2, 44 * S) == 60 * S
    tender.counts_come(S)
    tender.dropped(B, 100 * S, 40 * S)
    assert tender.counted(B, 1, 93 * S) == 0  # a tenth, as they come every second again
    assert tender.counted(B, 2, 94 * S) == 60 * S


@given(
    every=st.integers(1, 40 * S),
    ttl=st.integers(1, 4000),
    shift=st.integers(0, 40 * S),
    late=st.lists(st.integers(0, 400), min_size=1, max_size=20),
)
def test_who_goes_on_sending_is_extended_before_its_end(every: int, ttl: int, shift: int, late: list[int]) -> None:
    """Whenever counts come, none later than two fifths of its interval; unless the block is over before the first."""
    every, ttl_ns = max(every, S), ttl * S
    tender = Tender(0)
    tender.counts_come(every)
    tender.dropped(A, ttl_ns, 0)
    now, packets = shift % every, 0
    while now < ttl_ns:
        packets += 1
        if tender.counted(A, packets, now):
            return
        now += every + every * late[packets % len(late)] // 1000
    assert ttl_ns <= shift % every  # none came in its time


def test_who_is_silent_is_probed_and_lifted() -> None:
    tender = Tender(60 * S)
    tender.dropped(A, 3600 * S, 0)
    assert tender.counted(A, 7, 10 * S) == 0
    assert tender.look({A: 3}, 69 * S).probe == []
    assert tender.look({A: 3}, 70 * S).probe == [A]
    assert tender.probing(A)
    again = tender.look({A: 3}, 80 * S)
    assert (again.probe, again.lift, again.resume) == ([], [], [])
    assert tender.look({A: 3}, 100 * S).lift == [A]
    tender.gone([A])
    assert not tender.probing(A)


def test_nobody_is_silent_before_counts_could_say_otherwise() -> None:
    tender = Tender(5 * S)
    tender.counts_come(10 * S)
    tender.dropped(A, 3600 * S, 0)
    assert tender.look({A: 3}, 24 * S).probe == []
    assert tender.look({A: 3}, 25 * S).probe == [A]


def test_who_comes_back_in_its_probe_is_dropped_again() -> None:
    tender = Tender(60 * S)
    tender.dropped(A, 3600 * S, 0)
    assert tender.look({A: 3}, 60 * S).probe == [A]
    assert tender.look({A: 4}, 90 * S).resume == [A]
    assert not tender.probing(A)
    assert tender.look({A: 4}, 91 * S).probe == []  # it was not silent just now
    assert tender.look({A: 4}, 150 * S).probe == [A]


def test_nobody_is_probed_whose_block_is_not_known_or_where_that_is_off() -> None:
    tender = Tender(60 * S)
    tender.dropped(A, 3600 * S, 0)
    assert tender.look({}, 100 * S).probe == []
    off = Tender(0)
    off.dropped(A, 3600 * S, 0)
    assert off.look({A: 0}, 3000 * S).probe == []


def test_not_all_at_once() -> None:
    tender = Tender(60 * S)
    nets = [net_of(f"10.0.{n >> 8}.{n & 255}") for n in range(PROBES_MAX + 50)]
    for net in nets:
        tender.dropped(net, 3600 * S, 0)
    assert len(tender.look(dict.fromkeys(nets, 0), 60 * S).probe) == PROBES_MAX
    lifted = tender.look(dict.fromkeys(nets, 0), 90 * S)
    assert len(lifted.lift) == PROBES_MAX
    tender.gone(lifted.lift)
    assert len(tender.look(dict.fromkeys(nets, 0), 91 * S).probe) == 50


@given(st.lists(st.tuples(st.sampled_from(["count", "look", "hit"]), st.integers(1, 40)), max_size=60))
def test_nobody_is_lifted_who_sent_within_half_the_time(steps: list[tuple[str, int]]) -> None:
    """Whatever comes in which order: a lift has a probe before it, in which nothing came."""
    tender = Tender(60 * S)
    tender.dropped(A, 10**6 * S, 0)
    now, packets, hits, sent = 0, 0, 0, 0
    for what, passed in steps:
        now += passed * S
        if what == "count" and not tender.probing(A):
            packets += 1
            sent = now
            tender.counted(A, packets, now)
        elif what == "hit" and tender.probing(A):
            hits += 1
            sent = now
        elif what == "look":
            due = tender.look({A: hits}, now)
            if due.lift:
                assert now - sent >= 30 * S
                return
            assert not (due.probe and now - sent < 60 * S)

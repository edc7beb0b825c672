"""Blocks looked after: extended while they are met, lifted when nobody is there, and never without a probe."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scrubber.control.tend import ACTIVE_NS, PROBES_MAX, Tender
from scrubber.enforce.net import net_of

S = 1_000_000_000
A, B = net_of("198.51.100.1"), net_of("198.51.100.2")


def test_who_still_sends_is_extended_once_for_each_end() -> None:
    tender = Tender(0)
    tender.dropped(A, 600 * S, 0)
    tender.dropped(B, 600 * S, 0)
    tender.counted(A, 5, 100 * S)
    assert tender.still_sending(500 * S) == {}  # not near its end
    assert tender.still_sending(550 * S) == {}  # nothing came for long
    tender.counted(A, 9, 549 * S)
    assert tender.still_sending(550 * S) == {A: 600 * S}
    assert tender.still_sending(551 * S) == {}
    tender.dropped(A, 1200 * S, 551 * S)
    tender.counted(A, 10, 1190 * S)
    assert tender.still_sending(1191 * S) == {A: 600 * S}  # as long as it was at first
    tender.gone([A, B])
    assert tender.still_sending(1199 * S) == {}


def test_of_a_short_one_the_last_seconds_count() -> None:
    tender = Tender(0)
    tender.dropped(A, 4 * S, 0)
    tender.counted(A, 1, S)
    assert tender.still_sending(S) == {}
    assert tender.still_sending(2 * S) == {A: 4 * S}


def test_who_is_silent_is_probed_and_lifted() -> None:
    tender = Tender(60 * S)
    tender.dropped(A, 3600 * S, 0)
    tender.counted(A, 7, 10 * S)
    assert tender.look({A: 3}, 69 * S).probe == []
    assert tender.look({A: 3}, 70 * S).probe == [A]
    assert tender.probing(A)
    again = tender.look({A: 3}, 80 * S)
    assert (again.probe, again.lift, again.resume) == ([], [], [])
    assert tender.look({A: 3}, 100 * S).lift == [A]
    tender.gone([A])
    assert not tender.probing(A)


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
    assert ACTIVE_NS < 60 * S

"""Counts are told as far as they are news, and nobody is passed over for good."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scrubber.enforce.backend import Count
from scrubber.enforce.net import Net, net_of
from scrubber.enforce.told import Told

A, B, C = (net_of(f"198.51.100.{number}") for number in (1, 2, 3))


def counts(**packets: int) -> dict[Net, Count]:
    nets = {"a": A, "b": B, "c": C}
    return {nets[name]: Count(number, 40 * number) for name, number in packets.items()}


def test_what_there_is_comes_first_and_whole() -> None:
    told = Told()
    assert not told.begun
    assert told.next(counts(a=1, b=2, c=3), 1) == ([(A, 1, 40), (B, 2, 80), (C, 3, 120)], 1)
    assert told.begun
    assert told.next(counts(a=1, b=2, c=3), 1) == ([], 1)


def test_only_what_has_changed() -> None:
    told = Told()
    told.next(counts(a=1, b=2), 10)
    assert told.next(counts(a=1, b=3, c=1), 10) == ([(C, 1, 40), (B, 3, 120)], 1)


def test_what_is_gone_is_forgotten() -> None:
    told = Told()
    told.next(counts(a=5), 10)
    assert told.next(counts(), 10) == ([], 1)
    assert told.next(counts(a=5), 10) == ([(A, 5, 200)], 1)  # made anew


@given(st.integers(1, 30), st.integers(1, 10))
def test_in_so_many_rounds_everybody_who_sends_is_told(senders: int, most: int) -> None:
    told = Told()
    nets = [net_of(f"198.51.100.{number}") for number in range(senders)]
    told.next(dict.fromkeys(nets, Count(1, 40)), most)
    seen: set[Net] = set()
    rounds = -(-senders // most)
    for turn in range(rounds):
        rows, said = told.next(dict.fromkeys(nets, Count(2 + turn, 80)), most)
        assert said == rounds
        assert len(rows) <= most
        seen |= {net for net, _, _ in rows}
    assert seen == set(nets)

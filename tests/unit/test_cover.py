"""Hosts whose prefix is blocked: which need no drop of their own, and when they are looked at again."""

from __future__ import annotations

from scrubber.control.cover import PUT_BACK_NS, Cover
from scrubber.control.shut import Row, Shut
from scrubber.enforce.backend import Drop
from scrubber.enforce.net import Net, net_of

S = 1_000_000_000
DOORS = [frozenset({0}), frozenset({0, 1})]
PREFIX, WIDE, V6 = net_of("198.51.100.0/24"), net_of("198.51.0.0/16"), net_of("2001:db8::/56")
A, B, ELSEWHERE = net_of("198.51.100.1"), net_of("198.51.100.2"), net_of("203.0.113.1")
A6 = net_of("2001:db8:0:17::/64")


class Table:
    """Blocks as `Shut` has them, and the cover that follows."""

    def __init__(self) -> None:
        self.shut = Shut(DOORS)
        self.cover = Cover()

    def block(self, *nets: Net, until_s: int, areas: tuple[int, ...] = (0, 1), now_s: int = 1) -> set[Net]:
        """Hosts to be looked at again."""
        rows: list[Row] = [(net, areas, until_s * S, 0, 0) for net in nets]
        return self.cover.change(self.shut, self.shut.take(rows), now_s * S)

    def lift(self, net: Net, now_s: int = 1) -> set[Net]:
        self.shut.lift(net)
        return self.cover.change(self.shut, [net], now_s * S)

    def covered(self, net: Net, now_s: int = 1) -> bool:
        return self.cover.covers(net, self.shut.drop(net, now_s * S), now_s * S)


def test_a_host_in_a_blocked_prefix_needs_no_drop_of_its_own() -> None:
    table = Table()
    table.block(A, A6, ELSEWHERE, until_s=100)
    assert not table.covered(A)
    assert table.block(PREFIX, V6, until_s=100) == {A, A6}
    assert [table.covered(net) for net in (A, A6, ELSEWHERE, PREFIX)] == [True, True, False, False]
    assert len(table.cover) == 2
    assert table.block(PREFIX, until_s=100) == set()  # nothing has changed
    assert table.block(B, until_s=50) == set()
    assert table.covered(B)
    assert table.cover.nets() == {PREFIX, V6, A, B, A6}


def test_it_gets_its_own_again_when_the_prefix_is_lifted() -> None:
    table = Table()
    table.block(PREFIX, until_s=100)
    table.block(A, B, until_s=100)
    assert table.covered(A)
    assert table.covered(B)
    table.shut.lift(B)
    assert not table.covered(B)  # nothing to cover
    assert table.lift(PREFIX) == {A}
    assert not table.covered(A)
    assert table.cover.nets() == set()


def test_it_gets_its_own_again_before_the_prefix_ends() -> None:
    table = Table()
    table.block(PREFIX, until_s=100)
    table.block(A, until_s=300)
    table.block(B, until_s=100)
    assert table.covered(A)
    assert table.covered(B)
    before_s = 100 - PUT_BACK_NS // S
    assert table.cover.due((before_s - 1) * S) == set()
    assert table.cover.due(before_s * S) == {A, B}
    assert table.cover.due(before_s * S) == set()
    assert not table.covered(A, before_s)
    assert table.covered(B, before_s)  # it ends with it
    assert table.block(PREFIX, until_s=500, now_s=before_s) == {A, B}  # extended
    assert table.covered(A, before_s)
    assert not table.covered(B, 100)
    assert table.cover.due(500 * S - PUT_BACK_NS) == {A}  # B's own block is over by then
    assert table.cover.due(500 * S) == {A, PREFIX}
    assert table.cover.change(table.shut, [PREFIX], 500 * S) == {A}
    assert not table.covered(A, 500)
    assert table.cover.nets() == set()


def test_every_door_has_to_be_shut_by_the_prefix() -> None:
    table = Table()
    table.block(PREFIX, until_s=100, areas=(0,))
    table.block(A, until_s=100)
    table.block(B, until_s=100, areas=(0,))
    assert table.shut.drop(A, S) == Drop(100 * S, 0b11)
    assert not table.covered(A)
    assert table.covered(B)
    assert table.block(PREFIX, until_s=100, areas=(1,)) == {A, B}
    assert table.covered(A)  # by both of its blocks


def test_what_the_enforcer_does_not_take_covers_nobody() -> None:
    table = Table()
    table.block(PREFIX, until_s=100)
    table.block(A, until_s=100)
    assert table.covered(A)
    table.cover.refused(ELSEWHERE)
    table.cover.refused(PREFIX)
    assert table.cover.due(S) == {A}
    assert not table.covered(A)
    table.block(WIDE, until_s=100)
    assert table.covered(A)  # another one does


def test_a_prefix_that_is_wider_than_a_range_covers_whoever_is_asked_about() -> None:
    table = Table()
    table.block(A, until_s=100)
    assert table.block(WIDE, until_s=100) == set()  # nobody keeps count of its hosts
    assert table.covered(A)
    assert list(table.cover.over(PREFIX)) == [WIDE]
    assert table.lift(WIDE) == {A}


def test_what_is_refused_of_its_hosts_is_refused_of_the_prefix() -> None:
    table = Table()
    table.block(PREFIX, until_s=100)
    table.block(A, B, until_s=100)
    assert table.covered(A)
    assert table.covered(B)
    assert table.cover.with_hosts({PREFIX: 1, A: 5, B: 2, ELSEWHERE: 4})[PREFIX] == 8
    assert table.cover.with_hosts({PREFIX: 1, A: 5, B: 2})[PREFIX] == 8  # silent
    assert table.cover.with_hosts({PREFIX: 2, A: 6, B: 2})[PREFIX] == 10
    table.shut.lift(A)
    table.covered(A)
    assert table.cover.with_hosts({PREFIX: 2, B: 2}) == {PREFIX: 10, B: 2}  # a host that is gone is no news

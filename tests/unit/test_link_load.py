"""The load of the line, and whom it costs."""

from __future__ import annotations

from scrubber.control.link_load import FRESH_NS, SETTLE_NS, Heaviest, LinkLoad, Pressed, received_bytes
from scrubber.enforce.net import net_of

S = 1_000_000_000
A, B, C = (net_of(f"198.18.0.{n}") for n in (1, 2, 3))
DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  700      7    0    0    0     0          0         0      700       7    0    0    0     0       0          0
  eth0: 5000     50    0    0    0     0          0         0   900000     900    0    0    0     0       0          0
 eth0.7:900     9    0    0    0     0          0         0        1       1    0    0    0     0       0          0
"""  # noqa: E501 - as the kernel writes it


def test_bytes_are_those_that_came_in_over_the_line() -> None:
    assert received_bytes(DEV, ["eth0"]) == 5000
    assert received_bytes(DEV, ["eth0", "eth0.7"]) == 5900
    assert received_bytes(DEV, ["eth1"]) == 0


def test_load_is_by_second_against_what_the_line_carries() -> None:
    load = LinkLoad(1000)
    load.count(5000, S)
    assert load.ppm == 0
    load.count(6600, 3 * S)
    assert load.ppm == 800_000
    assert load.excess_bytes_per_s(500_000) == 300
    load.count(10, 4 * S)  # a new interface: nothing is known
    assert load.ppm == 800_000
    load.count(10, 5 * S)
    assert load.ppm == 0
    assert LinkLoad(0).ppm == 0


def test_the_heaviest_that_are_enough_and_no_more() -> None:
    heaviest = Heaviest()
    for net in (A, B, C):
        heaviest.counted(net, 0, S)
    assert heaviest.enough(1, (), S) == [], "nothing is known after one count"
    for net, count in ((A, 100), (B, 900), (C, 300)):
        heaviest.counted(net, count, 2 * S)
    assert heaviest.enough(1, (), 2 * S) == [B]
    assert heaviest.enough(901, (), 2 * S) == [B, C]
    assert heaviest.enough(10_000, (), 2 * S) == [B, C, A]
    assert heaviest.enough(1, {B}, 2 * S) == [C]
    assert heaviest.enough(0, (), 2 * S) == []
    heaviest.counted(B, 50, 3 * S)  # its entry was made anew
    assert heaviest.enough(10_000, (), 3 * S) == [C, A, B]
    assert heaviest.enough(10_000, (), 2 * S + FRESH_NS + 1) == [B], "the others were not counted for long"
    heaviest.forget(2 * S + FRESH_NS + 1)
    assert heaviest.enough(10_000, (), 3 * S) == [B]


def test_a_rule_acts_when_it_was_above_for_its_time_and_the_last_act_has_shown() -> None:
    pressed = Pressed()
    assert not pressed.due("m/pipe", 2 * S, 10 * S, above=True)
    assert not pressed.due("m/pipe", 2 * S, 11 * S, above=True)
    assert pressed.due("m/pipe", 2 * S, 12 * S, above=True)
    pressed.acted(12 * S)
    assert not pressed.due("m/pipe", 2 * S, 12 * S + SETTLE_NS - 1, above=True)
    assert pressed.due("m/pipe", 2 * S, 12 * S + SETTLE_NS, above=True)
    assert not pressed.due("m/pipe", 2 * S, 20 * S, above=False)
    assert not pressed.due("m/pipe", 2 * S, 21 * S, above=True), "it begins anew"
    pressed.keep([])
    assert not pressed.due("m/pipe", 2 * S, 30 * S, above=True)

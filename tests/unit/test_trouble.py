"""What goes on being wrong: told of at once, then once a minute, and every count once."""

from __future__ import annotations

from scrubber.server.trouble import Growing, Trouble


def test_it_is_told_at_once_then_once_a_minute_with_all_of_it() -> None:
    trouble = Trouble()
    told = {second: count for second in range(200) if (count := trouble.tell(2, 1000.0 + second))}
    assert told == {0: 2, 60: 120, 120: 120, 180: 120}
    assert trouble.untold == 2 * 19


def test_what_came_within_the_minute_is_told_after_it_though_no_more_comes() -> None:
    trouble = Trouble()
    assert [trouble.tell(1, 0.0), trouble.tell(3, 1.0), trouble.tell(0, 59.9), trouble.tell(0, 60.0)] == [1, 0, 0, 3]
    assert trouble.tell(0, 1000.0) == 0, "nothing is told of nothing"


def test_a_counter_s_growth_is_told_and_not_what_it_began_with() -> None:
    growing = Growing(count=7)
    assert [growing.look(7, 0.0), growing.look(9, 1.0), growing.look(10, 2.0), growing.look(10, 61.0)] == [0, 2, 0, 1]
    assert growing.look(4, 200.0) == 4, "it began anew"

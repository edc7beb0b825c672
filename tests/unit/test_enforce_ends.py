"""When entries end: whatever is put, moved and removed, what is over is found, all of it and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scrubber.enforce.ends import SPARE, Ends

KEYS = st.sampled_from([(bytes([number]), "drops") for number in range(4)])
TIMES = st.integers(0, 5)
ACTS = st.lists(st.one_of(st.tuples(st.just("put"), KEYS, TIMES), st.tuples(st.just("remove"), KEYS, TIMES)))


@given(ACTS, TIMES)
def test_what_is_over_is_found_whole(acts: list[tuple[str, tuple[bytes, str], int]], now: int) -> None:
    ends: Ends[tuple[bytes, str]] = Ends()
    kept: dict[tuple[bytes, str], int] = {}
    for what, key, until in acts:
        if what == "put":
            ends.put(key, until)
            kept[key] = until
        elif key in kept:
            ends.remove(key)
            del kept[key]
    assert ends.next_ns() == min(kept.values(), default=None)
    over = [key for key, until in kept.items() if until <= now]
    for _ in range(2):  # they stay until they are removed
        assert sorted(ends.over(now)) == sorted(over)
    for key in over:
        ends.remove(key)
    assert ends.over(now) == []


def test_what_is_renewed_for_ever_takes_no_more_memory() -> None:
    ends: Ends[tuple[bytes, str]] = Ends()
    for until in range(10_000):
        ends.put((b"one", "drops"), until)
    assert len(ends._order) <= SPARE + 3
    assert ends.next_ns() == 9_999

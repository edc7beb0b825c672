"""Rates, latency and the answer to "do people get through?" from counters."""

from __future__ import annotations

from typing import Any

import pytest

from scrubber.control.status import (
    LATENCY_BUCKETS,
    SCALARS,
    AreaHistory,
    History,
    describe_people,
    latency_bound_s,
    percent,
    percentile_ms,
)

S = 1_000_000_000


def totals(passed: int = 0, *, latency: dict[int, int] | None = None, **counters: int) -> dict[str, Any]:
    made: dict[str, Any] = dict.fromkeys(SCALARS, 0) | counters
    made["verdicts"] = [passed, counters.get("requests", passed) - passed, 0, 0, 0, 0]
    made["requests"] = counters.get("requests", passed)
    made["latency"] = [(latency or {}).get(index, 0) for index in range(LATENCY_BUCKETS)]
    return made


def test_nothing_yet() -> None:
    area = AreaHistory()
    assert area.people().share is None
    assert area.latency_ms(0.5) is None
    area.add(0, totals(5, served=5), False)
    assert area.people().requests == 0
    assert set(area.rates().values()) == {0.0}


def test_in_calm_everyone_let_through_is_people() -> None:
    area = AreaHistory()
    area.add(0, totals(), False)
    area.add(S, totals(100, known_requests=60, known_served=60, served=99), False)
    assert (area.people().requests, area.people().served) == (100, 99)


def test_in_a_rush_only_the_known_are_people() -> None:
    area = AreaHistory()
    area.add(0, totals(), True)
    area.add(S, totals(500, requests=9000, known_requests=60, known_served=59, served=400), True)
    assert (area.people().requests, area.people().served) == (60, 59)


def test_a_known_client_that_was_refused_counts_against_us() -> None:
    area = AreaHistory()
    area.add(0, totals(), False)
    area.add(S, totals(10, requests=20, known_requests=20, known_served=10, served=10), False)
    assert area.people().share == 0.5


def test_the_window_forgets() -> None:
    area = AreaHistory()
    area.add(0, totals(), False)
    area.add(S, totals(10, served=0), False)
    for second in range(2, 63):
        area.add(second * S, totals(10 + second, served=second), False)
    assert area.people().share == 1.0
    assert area.people().requests == 60


def test_a_new_memory_starts_anew() -> None:
    area = AreaHistory()
    area.add(0, totals(1000, served=1000), False)
    area.add(S, totals(2000, served=2000), False)
    area.add(2 * S, totals(5, served=5), False)
    assert area.people().requests == 0
    area.add(3 * S, totals(10, served=9), False)
    assert (area.people().requests, area.people().served) == (5, 4)


def test_rates_are_over_ten_seconds() -> None:
    area = AreaHistory()
    for second in range(31):
        area.add(second * S, totals(second * 100 if second <= 20 else 2000 + (second - 20) * 7), False)
    assert area.rates()["requests"] == 7.0
    assert area.rates()["pass"] == 7.0


def test_latency_is_that_of_the_window() -> None:
    area = AreaHistory()
    area.add(0, totals(latency={40: 1000}), False)
    area.add(S, totals(latency={40: 1000, 4: 98, 20: 2}), False)
    assert area.latency_ms(0.5) == pytest.approx(0.128)
    assert area.latency_ms(0.99) == pytest.approx(latency_bound_s(20) * 1000, rel=1e-3)


def test_percentiles() -> None:
    assert percentile_ms([0, 0], 0.5) is None
    assert percentile_ms([1, 0, 0, 0, 1], 0.5) == 0.064
    assert percentile_ms([1, 0, 0, 0, 1], 0.51) == 0.128


def test_nonsense_from_a_worker_is_no_figure_and_no_exception() -> None:
    area = AreaHistory()
    area.add(0, totals(10, served=10), False)
    area.add(S, totals(20, served=2**64 - 1, known_requests=2**64 - 1, latency={3: 2**64 - 1}), False)
    assert area.people().requests <= 20
    assert area.rates()["served"] == 0.0
    assert area.latency_ms(0.5) is None


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100.00 %"), (0.99999, "99.99 %"), (0.5, "50.00 %"), (0.0, "0.00 %")]
)
def test_percent_never_rounds_up(share: float, text: str) -> None:
    assert percent(share) == text


def history(*areas: tuple[int, int]) -> History:
    made = History()
    made.add(0, {index: totals() for index in range(len(areas))}, {})
    made.add(S, {index: totals(asked, served=served) for index, (asked, served) in enumerate(areas)}, {})
    return made


NAMES = {0: "portal", 1: "tax"}


def test_yes_with_the_figure() -> None:
    people = describe_people(history((12345, 12343)), NAMES, None)
    assert people["text"] == "yes, 99.98 % of 12,345 requests by newcomers got through in the last 60 s"
    assert people["through"]


@pytest.mark.parametrize(
    ("known", "whom"),
    [
        (0, "1,500 requests by newcomers"),
        (1500, "1,500 requests by known clients"),
        (1100, "1,500 requests (1,100 by known clients, 400 by newcomers)"),
    ],
)
def test_it_says_whom_it_counted(known: int, whom: str) -> None:
    made = History()
    made.add(0, {0: totals()}, {})
    made.add(S, {0: totals(1500, served=1500, known_requests=known, known_served=known)}, {})
    people = describe_people(made, NAMES, None)
    assert people["text"] == f"yes, 100.00 % of {whom} got through in the last 60 s"
    assert (people["requests"], people["known"]) == (1500, known)


def test_in_a_rush_it_says_who_is_not_counted() -> None:
    made = History()
    rush = {1: True}
    made.add(0, {0: totals(), 1: totals()}, rush)
    served = totals(70, requests=9000, known_requests=60, known_served=60, served=70)
    made.add(S, {0: totals(), 1: served}, rush)
    assert describe_people(made, NAMES, None)["text"] == (
        "yes, 100.00 % of 60 requests by known clients got through in the last 60 s; "
        "rush in tax: newcomers there are not counted"
    )
    nobody = History()
    nobody.add(0, {1: totals()}, rush)
    nobody.add(S, {1: totals(70, requests=9000, served=70)}, rush)
    assert "rush in tax" in describe_people(nobody, NAMES, [])["text"]


def test_no_with_the_figure() -> None:
    people = describe_people(history((100, 12)), NAMES, None)
    assert people["text"].startswith("no, 12.00 % of 100 requests by newcomers got through")
    assert not people["through"]


def test_one_area_that_fails_is_a_no_that_names_it() -> None:
    people = describe_people(history((100_000, 100_000), (100, 50)), NAMES, None)
    assert not people["through"]
    assert people["failing_areas"] == ["tax"]
    assert people["text"].endswith("least at tax: 50.00 %")


def test_a_handful_of_requests_condemns_no_area() -> None:
    assert describe_people(history((100_000, 100_000), (3, 2)), NAMES, None)["through"]


def test_nobody_asked() -> None:
    nobody = history((0, 0))
    assert (
        describe_people(nobody, NAMES, [])["text"]
        == "yes, nobody asked in the last 60 s; the origins accept connections"
    )
    down = describe_people(nobody, NAMES, ["portal"])
    assert down["text"] == "no, nobody asked in the last 60 s; no connection to the origin of portal"
    assert not down["through"]


def test_areas_that_are_gone_are_forgotten() -> None:
    made = history((10, 10), (10, 10))
    made.add(2 * S, {0: totals(20, served=20)}, {0: True})
    assert list(made.areas) == [0]
    assert made.areas[0].rush

"""What is happening: from counters that only grow to rates, shares and one answer, do people get through?

Owns: the last minute's samples, and the definition of people: clients known from before the present rush, and outside a
rush every newcomer that was let through as well.
Invariants: knows no clock and no memory of its own: times and counters are passed in; a counter that went backwards (a
new memory) counts as nothing.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VERDICTS = ("pass", "throttle", "challenge", "tarpit", "deny", "drop")
MEASURES = ("observe", "throttle", "challenge", "tarpit", "deny", "drop", "block", "blackhole")
LATENCY_BUCKETS = 64

WINDOW_S = 60  # people, latency
RATE_S = 10  # requests a second and the like
SHARE_MIN = 0.99  # of people's requests; below it the answer is no
REQUESTS_MIN = 50  # an area with fewer people's requests is not judged on its own
_WRAP = 1 << 64  # counters wrap there
_JUMP = 1 << 62  # a difference beyond is no difference but a new memory, or nonsense

SCALARS = (
    "requests",
    "known_requests",
    "known_served",
    "served",
    "answered",
    "origin_errors",
    "client_aborts",
    "bytes_in",
    "bytes_out",
    "origin_ns",
    "shed",
    "refused_acts",
    "latency_ns_sum",
)
_AT = {name: index for index, name in enumerate(SCALARS)}
_VERDICTS_AT = len(SCALARS)
_LATENCY_AT = _VERDICTS_AT + len(VERDICTS)
_PEOPLE_AT = _LATENCY_AT + LATENCY_BUCKETS
_SERVED_AT = _PEOPLE_AT + 1


def latency_bound_s(bucket: int) -> float:
    """Upper bound of a latency bucket in seconds (ext/counters.pxd: 64 us times 2 to the bucket/4)."""
    return 64e-6 * math.pow(2, bucket / 4)


def percentile_ms(buckets: Sequence[int], share: float) -> float | None:
    """The bound under which that share of the requests lies, in ms; None: there were none."""
    total = sum(buckets)
    if total <= 0:
        return None
    wanted, seen = share * total, 0
    for index, count in enumerate(buckets):
        seen += count
        if seen >= wanted:
            return round(latency_bound_s(index) * 1000, 3)
    return round(latency_bound_s(len(buckets) - 1) * 1000, 3)


def _difference(start: Sequence[int], end: Sequence[int], at: int) -> int | None:
    found = (end[at] - start[at]) % _WRAP
    return found if found < _JUMP else None


def _grown(start: Sequence[int], end: Sequence[int], at: int) -> int:
    """How much a counter grew; 0 where it jumped."""
    return _difference(start, end, at) or 0


@dataclass(frozen=True, slots=True)
class People:
    """How many requests of people there were, how many got an answer below 500, of origin or route, and how many of
    them all were by clients known from before (the others: newcomers that were let through)."""

    requests: int
    served: int
    known: int = 0

    @property
    def share(self) -> float | None:
        """None: nobody asked."""
        return min(self.served / self.requests, 1.0) if self.requests else None


class AreaHistory:
    """One area's counters over the last minute."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, array[int]]] = deque(maxlen=WINDOW_S + 1)
        self.rush = False

    def add(self, now_ns: int, totals: Mapping[str, Any], rush: bool) -> None:
        """Take a sample; at most one a second is useful."""
        row = array("Q", [totals[name] for name in SCALARS])
        row.extend(totals["verdicts"])
        row.extend(totals["latency"])
        last = self._samples[-1][1] if self._samples else None
        if last is not None and _difference(last, row, _AT["requests"]) is None:
            self._samples.clear()
            last = None
        people, served = self._people(last, row, rush) if last is not None else (0, 0)
        row.append(people)
        row.append(served)
        self._samples.append((now_ns, row))
        self.rush = rush

    @staticmethod
    def _people(last: Sequence[int], row: Sequence[int], rush: bool) -> tuple[int, int]:
        """The two sums of people, continued by what came since the last sample."""
        known = _grown(last, row, _AT["known_requests"])
        known_served = _grown(last, row, _AT["known_served"])
        newcomers = newcomers_served = 0
        if not rush:
            newcomers = max(_grown(last, row, _VERDICTS_AT) - known, 0)
            everybody_served = _grown(last, row, _AT["served"]) + _grown(last, row, _AT["answered"])
            newcomers_served = min(max(everybody_served - known_served, 0), newcomers)
        return (last[_PEOPLE_AT] + known + newcomers) % _WRAP, (
            last[_SERVED_AT] + known_served + newcomers_served
        ) % _WRAP

    def _span(self, window_s: int) -> tuple[float, array[int] | None, array[int] | None]:
        """Seconds, first and last row of what of the window there is."""
        if len(self._samples) < 2:
            return 0.0, None, None
        end_ns, end = self._samples[-1]
        start_ns, start = self._samples[-2]
        for at_ns, row in reversed(self._samples):
            if end_ns - at_ns > (window_s + 0.5) * 1e9:
                break
            start_ns, start = at_ns, row
        return (end_ns - start_ns) / 1e9, start, end

    def people(self) -> People:
        """Over the last minute."""
        _, start, end = self._span(WINDOW_S)
        if start is None or end is None:
            return People(0, 0)
        requests = _grown(start, end, _PEOPLE_AT)
        known = min(_grown(start, end, _AT["known_requests"]), requests)
        return People(requests, _grown(start, end, _SERVED_AT), known)

    def rates(self) -> dict[str, float]:
        """A second, over the last ten: requests, served, shed and each verdict."""
        seconds, start, end = self._span(RATE_S)
        names = {"requests": _AT["requests"], "served": _AT["served"], "shed": _AT["shed"]}
        names |= {verdict: _VERDICTS_AT + index for index, verdict in enumerate(VERDICTS)}
        if start is None or end is None or not seconds:
            return dict.fromkeys(names, 0.0)
        return {name: round(_grown(start, end, at) / seconds, 1) for name, at in names.items()}

    def latency_ms(self, share: float) -> float | None:
        """A percentile over the last minute."""
        _, start, end = self._span(WINDOW_S)
        if start is None or end is None:
            return None
        return percentile_ms([_grown(start, end, at) for at in range(_LATENCY_AT, _PEOPLE_AT)], share)


class History:
    """All areas, by area id."""

    def __init__(self) -> None:
        self.areas: dict[int, AreaHistory] = {}

    def add(self, now_ns: int, totals: Mapping[int, Mapping[str, Any]], rush: Mapping[int, bool]) -> None:
        """A sample of these areas; others are forgotten."""
        self.areas = {area_id: self.areas.get(area_id) or AreaHistory() for area_id in totals}
        for area_id, each in totals.items():
            self.areas[area_id].add(now_ns, each, rush.get(area_id, False))

    def people(self) -> People:
        """Of all areas."""
        each = [area.people() for area in self.areas.values()]
        return People(sum(p.requests for p in each), sum(p.served for p in each), sum(p.known for p in each))


def describe_people(history: History, names: Mapping[int, str], origins_down: Sequence[str] | None) -> dict[str, Any]:
    """The first line of the status: yes or no, with the figure. `origins_down`: asked only where nobody came; None:
    unknown."""
    total = history.people()
    share = total.share
    failing = {
        names[area_id]: people.share
        for area_id, area in history.areas.items()
        if area_id in names and (people := area.people()).requests >= REQUESTS_MIN
        if people.share is not None and people.share < SHARE_MIN
    }
    if share is None:
        through = not origins_down
        text = f"nobody asked in the last {WINDOW_S} s"
        if origins_down:
            text += f"; no connection to the origin of {', '.join(origins_down)}"
        elif origins_down is not None:
            text += "; the origins accept connections"
    else:
        through = share >= SHARE_MIN and not failing
        text = f"{percent(share)} of {_counted(total)} got through in the last {WINDOW_S} s"
        if failing:
            text += "; least at " + ", ".join(f"{name}: {percent(worst)}" for name, worst in sorted(failing.items()))
    rush = sorted(names[area_id] for area_id, area in history.areas.items() if area.rush and area_id in names)
    if rush:
        text += f"; rush in {', '.join(rush)}: newcomers there are not counted"
    return {
        "through": through,
        "text": ("yes, " if through else "no, ") + text,
        "requests": total.requests,
        "served": total.served,
        "known": total.known,
        "success": share,
        "window_s": WINDOW_S,
        "failing_areas": sorted(failing),
    }


def _counted(people: People) -> str:
    """Whose requests these are, for who reads a figure wants to know of what it is."""
    new = people.requests - people.known
    if new and people.known:
        return f"{people.requests:,} requests ({people.known:,} by known clients, {new:,} by newcomers)"
    return f"{people.requests:,} requests by {'newcomers' if new else 'known clients'}"


def percent(share: float) -> str:
    """Two decimals, never rounded up to 100 %."""
    return f"{math.floor(share * 10_000) / 100:.2f} %"

"""GCRA (ITU-T I.371), written with whole numbers of any size and a dict: no cells, no eviction, no races."""

from dataclasses import dataclass, field
from typing import NamedTuple

NEVER = 2**64 - 1


class Rate(NamedTuple):
    """count units every period_ns, burst at once."""

    count: int
    period_ns: int
    burst: int

    def ns(self, units: int) -> int:
        """Nanoseconds that units take, rounded down, but never nothing."""
        return max(1, units * self.period_ns // self.count) if units else 0


class Answer(NamedTuple):
    """What the limiter says of one request."""

    limited: bool
    remaining: int
    retry_ns: int
    reset_ns: int


@dataclass
class Limiter:
    """One theoretical arrival time a key."""

    tat_ns: dict[int, int] = field(default_factory=dict)

    def backlog_ns(self, key: int, now_ns: int) -> int:
        return max(0, self.tat_ns.get(key or 1, 0) - now_ns)

    def admit(self, key: int, rate: Rate, cost: int, now_ns: int, share_ppm: int = 1_000_000) -> Answer:
        whole = rate.ns(rate.burst)
        tolerance = whole
        if share_ppm < 1_000_000:
            tolerance = min(whole, max(whole * share_ppm // 1_000_000, rate.ns(1))) if share_ppm else 0
        backlog = self.backlog_ns(key, now_ns)
        asked = rate.ns(max(cost, 1))
        limited = backlog + asked > tolerance or cost > rate.burst
        retry = 0
        if limited:
            retry = NEVER if asked > tolerance or cost > rate.burst else backlog + asked - tolerance
        elif cost:
            backlog += asked
            self.tat_ns[key or 1] = now_ns + backlog
        return Answer(limited, self._remaining(rate, tolerance - backlog), retry, backlog)

    @staticmethod
    def _remaining(rate: Rate, left_ns: int) -> int:
        """The largest number of units whose time fits into left_ns, by bisection."""
        low, high = 0, rate.burst
        while low < high:
            middle = (low + high + 1) // 2
            if rate.ns(middle) <= left_ns:
                low = middle
            else:
                high = middle - 1
        return low

    def charge(self, key: int, rate: Rate, cost: int, debt_max_ns: int, now_ns: int) -> None:
        most = rate.ns(rate.burst) + debt_max_ns
        backlog = self.backlog_ns(key, now_ns)
        if cost and backlog < most:
            self.tat_ns[key or 1] = now_ns + min(most, backlog + rate.ns(cost))

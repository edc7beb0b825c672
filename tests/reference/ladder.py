"""A ladder, written as the mandate's words have it: one dict, no buckets, no locks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Step(NamedTuple):
    """Rung in force (-1: none), whether this call brought the source there, the rung passed over (-1: none)."""

    rung: int
    entered: bool
    skipped: int


@dataclass
class Stand:
    """One source's place."""

    at: int
    since_ns: int
    last_ns: int


@dataclass
class Ladder:
    """All sources of one rule or of many."""

    stands: dict[int, Stand] = field(default_factory=dict)

    @staticmethod
    def _step(at: int, available: int, entered: bool) -> Step:
        below = [rung for rung in range(at + 1) if available >> rung & 1]
        rung = below[-1] if below else -1
        return Step(rung, entered, -1 if rung == at else at)

    def _stand(self, key: int, calm_ns: int, now_ns: int) -> Stand | None:
        stand = self.stands.get(key or 1)
        return stand if stand and now_ns - stand.last_ns < calm_ns else None

    def over(self, key: int, holds: list[int], available: int, calm_ns: int, now_ns: int) -> Step:
        if not holds:
            return Step(-1, False, -1)
        stand, entered = self._stand(key, calm_ns, now_ns), False
        if stand is None:
            stand, entered = Stand(0, now_ns, now_ns), True
            self.stands[key or 1] = stand
        else:
            stand.at = min(stand.at, len(holds) - 1)
            if stand.at + 1 < len(holds) and now_ns - stand.since_ns >= holds[stand.at]:
                stand.at, stand.since_ns, entered = stand.at + 1, now_ns, True
        stand.last_ns = now_ns
        return self._step(stand.at, available, entered)

    def under(self, key: int, holds: list[int], available: int, calm_ns: int, now_ns: int) -> Step:
        stand = self._stand(key, calm_ns, now_ns)
        if stand is None or not holds:
            return Step(-1, False, -1)
        return self._step(min(stand.at, len(holds) - 1), available, False)

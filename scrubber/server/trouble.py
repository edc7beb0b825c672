"""What goes wrong again and again is told of at once, then once a minute, with how often it was: never each time.

Owns: what was counted and not yet told. Invariant: while it goes on every count is told sooner or later, none twice.
"""

from __future__ import annotations

from dataclasses import dataclass

TELL_EVERY_S = 60.0


@dataclass
class Trouble:
    """One thing that goes wrong. Times are monotonic."""

    told_s: float = float("-inf")
    untold: int = 0

    def tell(self, more: int, now_s: float) -> int:
        """`more` of it happened; how many to tell of now, 0 for nothing."""
        self.untold += more
        if not self.untold or now_s - self.told_s < TELL_EVERY_S:
            return 0
        told, self.untold, self.told_s = self.untold, 0, now_s
        return told


@dataclass
class Growing(Trouble):
    """The same of a counter that others count up."""

    count: int = 0

    def look(self, count: int, now_s: float) -> int:
        """It stands at `count` now. (Less than before: it began anew.)"""
        more, self.count = count - self.count if count >= self.count else count, count
        return self.tell(more, now_s)

"""Which counts the supervisor was told: it gets those that have changed, and where they are too many a part of them.

Owns what was told of each network, and when. Invariants: first it is told what there is, so that what comes after is
news; who has waited longest is told next, so none of those that go on sending is passed over for good.
"""

from __future__ import annotations

from collections.abc import Mapping

from scrubber.enforce.backend import Count
from scrubber.enforce.net import Net

Row = tuple[Net, int, int]


class Told:
    def __init__(self) -> None:
        self._counts: dict[Net, Count] = {}  # in the order in which they were told
        self.begun = False

    def next(self, counted: Mapping[Net, Count], most: int) -> tuple[list[Row], int]:
        """What is to be told now (the first time: all); and how many rounds of that size all that has changed takes."""
        told = self._counts
        if not self.begun:
            most, self.begun = max(most, len(counted)), True
        for net in [net for net in told if net not in counted]:
            del told[net]
        fresh = [net for net in counted if net not in told]
        changed = fresh + [net for net, count in told.items() if counted[net] != count]
        rows: list[Row] = []
        for net in changed[:most]:
            told.pop(net, None)
            told[net] = counted[net]
            rows.append((net, *counted[net]))
        return rows, max(-(-len(changed) // most), 1)

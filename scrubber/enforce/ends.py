"""When entries end, where the kernel does not end them by itself.

Owns that bookkeeping. Invariant: all that is over is found by `over`, at a cost of what is over alone.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

K = TypeVar("K", bound=tuple[bytes, str])

SPARE = 64  # outdated times that may always be kept


class Ends(Generic[K]):
    """Keys and the time of each. A key that got another time leaves its old one behind, to be skipped."""

    def __init__(self) -> None:
        self._until: dict[K, int] = {}
        self._order: list[tuple[int, K]] = []

    def put(self, key: K, until_ns: int) -> None:
        if self._until.get(key) == until_ns:
            return
        self._until[key] = until_ns
        heapq.heappush(self._order, (until_ns, key))
        if len(self._order) > 2 * len(self._until) + SPARE:
            self._order = [(until, key) for key, until in self._until.items()]
            heapq.heapify(self._order)

    def remove(self, key: K) -> None:
        del self._until[key]

    def next_ns(self) -> int | None:
        """When the first of them ends."""
        order = self._order
        while order and self._until.get(order[0][1]) != order[0][0]:
            heapq.heappop(order)
        return order[0][0] if order else None

    def over(self, now_ns: int) -> list[K]:
        """Those whose time is up; they stay until they are removed."""
        found: list[K] = []
        while (first := self.next_ns()) is not None and first <= now_ns:
            key = heapq.heappop(self._order)[1]
            if key not in found[-1:]:  # twice with the same time: they come one after the other
                found.append(key)
        for key in found:
            heapq.heappush(self._order, (self._until[key], key))
        return found

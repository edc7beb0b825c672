"""The acts of late: what was done, to whom, under which clause. Kept for the status; the access log has all of them.

Owns: their numbering and their bound. An act is an object as the core or the supervisor wrote it into the log.
Invariant: numbers only grow; who asks for what came after a number gets each act once, or finds it gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

KEPT = 2000


class Acts:
    """The last `KEPT` acts, numbered from 1."""

    def __init__(self, kept: int = KEPT) -> None:
        self._acts: deque[dict[str, Any]] = deque(maxlen=kept)
        self._count = 0

    def add_lines(self, lines: Iterable[bytes]) -> None:
        """Acts as log lines; one that is no object is kept as its text."""
        for line in lines:
            try:
                act = msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.DecodeError, UnicodeDecodeError):
                act = {"message": line.decode("utf-8", "replace")}
            self._count += 1
            self._acts.append({"number": self._count, **act})

    def since(self, number: int) -> list[dict[str, Any]]:
        """Those after `number`, oldest first."""
        return [act for act in self._acts if act["number"] > number]

    def last(self, count: int) -> list[dict[str, Any]]:
        """The latest, oldest first."""
        return list(self._acts)[-count:]

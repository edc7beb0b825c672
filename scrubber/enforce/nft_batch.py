"""Many changes in few transactions, and what of them the kernel does not take.

Owns how a refused transaction is taken apart. A transaction is all or nothing, and names its first bad element at most:
halves are tried until the bad ones stand alone. Each failure makes the kernel wait some 20 ms, so they are counted.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from scrubber.enforce.net import Net
from scrubber.enforce.nft_layout import Cut, Put, Slot

BATCH = 1000  # elements a transaction: more brings no more speed
REFUSALS_MAX = 64  # of one call; what is left behind them gets the last one's word
FULL = "full"

_KERNEL_SAID = re.compile(r"Error: (?:Could not process rule: )?(.*)")


class Refused(Exception):
    """A transaction was not taken; the kernel's word, or libnftables'."""

    def __init__(self, said: str) -> None:
        found = _KERNEL_SAID.search(said)
        word = found[1] if found else "libnftables failed without a word"
        self.full = word == os.strerror(errno.ENFILE)
        super().__init__(FULL if self.full else word)
        self.absent = word == os.strerror(errno.ENOENT)


class Batches:
    """`patient`: takes refused transactions apart, `refused` says what did not go in; else the first one is raised."""

    def __init__(self, run: Callable[[str], None], *, patient: bool) -> None:
        self._run = run
        self._patient = patient
        self._left = REFUSALS_MAX
        self._full: set[Slot] = set()
        self.refused: dict[Net, str] = {}

    def send(self, changes: Sequence[Any], text: Callable[[Sequence[Any]], str]) -> None:
        """Either all of them add to their sets, or none does."""
        self._full.clear()
        for start in range(0, len(changes), BATCH):
            self._try(changes[start : start + BATCH], text)

    def _try(self, part: Sequence[Put | Cut], text: Callable[[Sequence[Any]], str]) -> None:
        """Halves until it goes in, or is one alone. A set that was full for one is not asked again."""
        if self._full:
            self.refused |= {change.net: FULL for change in part if change.slot in self._full}
            part = [change for change in part if change.slot not in self._full]
        if not part:
            return
        try:
            self._run(text(part))
            return
        except Refused as error:
            if not self._patient:
                raise
            refusal = error
        self._left -= 1
        if len(part) > 1 and self._left > 0:
            middle = len(part) // 2
            self._try(part[:middle], text)
            self._try(part[middle:], text)
            return
        if refusal.absent and isinstance(part[0], Cut):
            return  # it is out
        self.refused |= {change.net: str(refusal) for change in part}
        if refusal.full:
            self._full |= {change.slot for change in part}

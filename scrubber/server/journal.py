"""From the rings to the access log, and acts to those who ask what is happening.

Owns: the one thread that reads rings and writes the log. Invariants: the supervisor's loop never waits for a disk; acts
of the workers and of the supervisor go into the same log, in the order in which they were taken up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec

from scrubber import _native
from scrubber.control.acts import Act, Acts, from_record
from scrubber.server.access_log import AccessLog

EVERY_S = 0.05
READ_BYTES_MAX = 1 << 20  # a ring, a round
ROUNDS_MAX = 8  # a look: at full flood the other rings get their turn
RECORD_ACT = 2  # ext/ring.pxd


class Journal:
    """Call `run` as a task; `finish` takes the last look."""

    def __init__(self, memory: _native.Memory, workers: int, path: str, logger: logging.Logger) -> None:
        self.log = AccessLog("" if path == "off" else path, logger)
        self.acts = Acts()
        self.area_names: Mapping[int, str] = {}  # of the policy in force
        self._memory = memory
        self._workers = workers
        self._own: list[bytes] = []
        self._thread = ThreadPoolExecutor(1, "journal")

    def record(self, act: Act) -> None:
        """An act of the supervisor's."""
        self._own.append(msgspec.json.encode(act))
        self.acts.add([act])

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(EVERY_S)

    async def finish(self) -> None:
        """Whatever is left in the rings, then the file is closed."""
        with contextlib.suppress(OSError):
            while await self._look():
                pass
        await asyncio.get_running_loop().run_in_executor(self._thread, self.log.close)
        self._thread.shutdown()

    async def _look(self) -> bool:
        """Take up and write what there is; whether there was anything."""
        own, self._own = self._own, []
        loop = asyncio.get_running_loop()
        found, acts = await loop.run_in_executor(self._thread, self._take_up, own)
        self.acts.add(acts)
        return found

    def _take_up(self, lines: list[bytes]) -> tuple[bool, list[Act]]:
        """In the thread: read all rings, write all lines; the acts among them."""
        acts: list[Act] = []
        found = False
        wall_offset_ns = time.time_ns() - time.monotonic_ns()
        for _ in range(ROUNDS_MAX):
            for slot in range(self._workers):
                for kind, record in self._memory.ring_read(slot, READ_BYTES_MAX):
                    if kind == RECORD_ACT:
                        acts.append(from_record(record, wall_offset_ns, self.area_names))
                        lines.append(msgspec.json.encode(acts[-1]))
                    else:
                        lines.append(record.rstrip(b"\n"))
            if not lines:
                break
            self.log.write(lines)
            lines, found = [], True
        return found, acts

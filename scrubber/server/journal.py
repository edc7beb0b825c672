"""From the rings to the logs, and acts to those who ask what is happening.

Owns: the one thread that reads rings and writes logs. Invariants: the supervisor's loop never waits for a disk; acts of
the workers and of the supervisor go the same way, in the order in which they were taken up.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import msgspec

from scrubber import _native
from scrubber.config.log import Log
from scrubber.control.acts import Act, Acts, from_record
from scrubber.server.outputs import Outputs, Piece

P = ParamSpec("P")
T = TypeVar("T")

EVERY_S = 0.05
READ_BYTES_MAX = 1 << 16  # a ring, a round: what malloc keeps at hand, and a cache holds
ROUNDS_MAX = 128  # a look
RECORD_ACT = 2  # ext/ring.pxd


class Journal:
    """Call `run` as a task; `finish` takes the last look."""

    def __init__(self, memory: _native.Memory, workers: int, log: Log, logger: logging.Logger) -> None:
        self.outputs = Outputs(log, logger)
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

    async def use(self, log: Log) -> None:
        """From the next line on, as this says."""
        await self._in_thread(self.outputs.use, log)

    async def reopen(self) -> list[str]:
        """What was taken up so far goes where it went so far; then every file is opened anew. What could not be."""
        return await self._in_thread(self.outputs.reopen)

    async def finish(self) -> None:
        """Whatever is left in the rings, then all is closed."""
        with contextlib.suppress(OSError):
            while await self._look():
                pass
        await self._in_thread(self.outputs.close)
        self._thread.shutdown()

    async def _look(self) -> bool:
        """Take up and write what there is; whether there was anything."""
        own, self._own = self._own, []
        found, acts = await self._in_thread(self._take_up, own)
        self.acts.add(acts)
        return found

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **how: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, functools.partial(work, *args, **how))

    def _take_up(self, own: list[bytes]) -> tuple[bool, list[Act]]:
        """In the thread: read all rings, write all lines; the acts among them."""
        acts: list[Act] = []
        pieces = [_act(line) for line in own]
        found = False
        wall_offset_ns = time.time_ns() - time.monotonic_ns()
        for _ in range(ROUNDS_MAX):
            for slot in range(self._workers):
                for kind, data, lines in self._memory.ring_read(slot, READ_BYTES_MAX):
                    if kind == RECORD_ACT:
                        acts.append(from_record(data, wall_offset_ns, self.area_names))
                        pieces.append(_act(msgspec.json.encode(acts[-1])))
                    else:
                        pieces.append(Piece(data, lines))
            if not pieces:
                break
            self.outputs.write(pieces)
            pieces, found = [], True
        self.outputs.flush()
        return found, acts


def _act(line: bytes) -> Piece:
    return Piece(line + b"\n", 1, act=True)

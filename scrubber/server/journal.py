"""From the rings to the logs, and acts to those who ask what is happening.

Owns: the one thread that reads rings and writes logs. Invariants: the supervisor's loop never waits for a disk; acts of
the workers and of the supervisor go the same way, in the order in which they were taken up; where the thread fails,
`run` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping

import msgspec

from scrubber import _native
from scrubber.config.log import Log
from scrubber.control.acts import Act, Acts, from_record
from scrubber.server.outputs import Outputs, Piece

EVERY_S = 0.05
BUSY_S = 0.01  # after a look that found many lines: little at a time keeps no worker waiting, and is still in a cache
BUSY_LINES = 100
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
        self._own: deque[bytes] = deque()
        self._lock = threading.Lock()  # whoever reads rings or uses the outputs
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def record(self, act: Act) -> None:
        """An act of the supervisor's."""
        self._own.append(msgspec.json.encode(act))
        self.acts.add([act])

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._write_on, args=(loop, ended), name="journal", daemon=True)
        self._thread.start()
        await ended

    async def use(self, log: Log) -> None:
        """From the next line on, as this says."""
        await asyncio.to_thread(self._use, log)

    async def reopen(self) -> list[str]:
        """What was taken up so far goes where it went so far; then every file is opened anew. What could not be."""
        return await asyncio.to_thread(self._reopen)

    async def finish(self) -> None:
        """Whatever is left in the rings, then all is closed."""
        await asyncio.to_thread(self._finish)

    # ── in a thread ──

    def _write_on(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
        """One look after the other, until it is over."""
        pause_s = EVERY_S
        try:
            while not self._over.wait(pause_s):
                pause_s = BUSY_S if self._look(loop) >= BUSY_LINES else EVERY_S
        except Exception as error:  # whatever it is, the supervisor has to end by it
            with contextlib.suppress(RuntimeError):  # the loop has ended as well
                loop.call_soon_threadsafe(_fail, ended, error)

    def _use(self, log: Log) -> None:
        with self._lock:
            self.outputs.use(log)

    def _reopen(self) -> list[str]:
        with self._lock:
            return self.outputs.reopen()

    def _finish(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):
            while self._look(None):
                pass
        self.outputs.close()

    def _look(self, loop: asyncio.AbstractEventLoop | None) -> int:
        """Read all rings, write all lines; how many there were."""
        acts: list[Act] = []
        with self._lock:
            found = self._take_up(acts)
        if acts and loop is not None:
            loop.call_soon_threadsafe(self.acts.add, acts)
        elif acts:
            self.acts.add(acts)
        return found

    def _take_up(self, acts: list[Act]) -> int:
        found = 0
        wall_offset_ns = time.time_ns() - time.monotonic_ns()
        for _ in range(ROUNDS_MAX):
            pieces = [_act(self._own.popleft()) for _ in range(len(self._own))]
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
            found += sum(piece.lines for piece in pieces)
        self.outputs.flush()
        return found


def _act(line: bytes) -> Piece:
    return Piece(line + b"\n", 1, act=True)


def _fail(ended: asyncio.Future[None], error: Exception) -> None:
    if not ended.done():
        ended.set_exception(error)

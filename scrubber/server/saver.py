"""Keeps the file of blocks after the table: what is made, extended or lifted is on disk within a second.

Owns: when the file is written, and what comes of a disk that does not take it. Invariants: the supervisor's loop never
waits for a disk; only who holds the lock on the secret writes (of a gateway and its successor: one); whatever went
wrong, the file is written whole again from the table, so that nothing on disk outlives a cause that has gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from scrubber import _native
from scrubber.control import acts
from scrubber.control.policy import PolicyInForce
from scrubber.control.saved import Pages, SavedBlock
from scrubber.errors import OperatorError
from scrubber.server import secret
from scrubber.server.block_file import BlockFile, Lifted, Record
from scrubber.server.journal import Journal
from scrubber.server.trouble import Trouble

EVERY_S = 0.4
RETRY_S = 2.0  # after a failure: a file is then written whole
LOCK_S = 30.0  # a gateway that we succeed lets go sooner
DEAD_MAX = 1000  # lines of no use, beyond as many as there are of use


class Saver:
    """Call `run` as a task; `finish` takes the last look."""

    def __init__(
        self, memory: _native.Memory, journal: Journal, directory: str, policy: PolicyInForce, logger: logging.Logger
    ) -> None:
        self._memory, self._journal, self._directory, self._logger = memory, journal, directory, logger
        self._pages = Pages(memory)
        self._pages.use(policy)
        self._thread = ThreadPoolExecutor(1, "saver")
        self._file: BlockFile | None = None
        self._lock = -1
        self._lifted: list[Lifted] = []
        self._whole = True  # the file is to be written anew: at the start, too, as nobody knows what it lacks
        self._begun = self._over = False
        self._live = 0
        self._trouble = Trouble()
        self._patient_until = 0.0
        self.failures = 0
        self.error = ""

    def use(self, policy: PolicyInForce) -> None:
        """From now on its names."""
        self._pages.use(policy)

    def lifted(self, kind: str, source: str) -> None:
        """A source's blocks were taken out of the table."""
        self._lifted.append(Lifted(kind, source))

    def rewrite(self) -> None:
        """Times on disk hold no more: the wall clock was set."""
        self._whole = True

    async def run(self) -> None:
        """Until cancelled, or another goes on with the file."""
        loop = asyncio.get_running_loop()
        self._patient_until = loop.time() + LOCK_S
        self._begun = True
        pause_s = 0.0
        while True:
            await asyncio.sleep(pause_s)
            if self._over:
                return
            pause_s = EVERY_S if await self._look() else RETRY_S

    async def finish(self) -> None:
        """What there is since the last look; then the lock is another's."""
        if self._begun and not self._over:
            await self._look()
        self.let_go()

    def let_go(self) -> None:
        """Another gateway goes on with the file, from memory of its own."""
        if not self._over:
            self._over = True
            self._thread.submit(self._close)
            self._thread.shutdown(wait=False)

    async def _look(self) -> bool:
        """Write what there is to be written; False: that failed, and it is said once a minute."""
        lifted, self._lifted = self._lifted, []
        whole, self._whole = self._whole, False
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._save, lifted, whole)
        except BlockingIOError:
            if loop.time() >= self._patient_until:
                self._failed("another process writes the blocks of this state_dir", loop.time())
            return True
        except (OSError, OperatorError) as error:
            self._failed(getattr(error, "strerror", None) or str(error), loop.time())
            return False
        if self.error:
            self._say(acts.made("blocks_saved", "blocks are on disk again"))
            self.error, self._trouble = "", Trouble()
        return True

    def _failed(self, why: str, now_s: float) -> None:
        self.failures += 1
        self.error = why
        if self._trouble.tell(1, now_s):
            message = f"blocks are not on disk, and would not outlive a kill of this gateway: {why}"
            self._say(acts.made("blocks_unsaved", message))

    def _say(self, act: acts.Act) -> None:
        self._logger.warning("%s", act["message"])
        self._journal.record(act)

    # ── in the thread ──

    def _save(self, lifted: list[Lifted], whole: bool) -> None:
        try:
            if self._lock < 0:
                self._lock = secret.lock(self._directory)
            if self._file is None:
                self._file = BlockFile(self._directory, secret.read(self._directory).blocks)
            self._write(self._file, lifted, whole=whole)
        except BaseException:
            self._whole = True  # here, as the task that asked may have been cancelled
            raise

    def _write(self, file: BlockFile, lifted: list[Lifted], *, whole: bool) -> None:
        if whole or self._mostly_dead(file):
            self._live = 0
            file.rewrite(self._counted())
            return
        records: list[Record] = [*lifted, *(block for page in self._pages.pages(changed=True) for block in page)]
        if records:
            file.append(records)

    def _counted(self) -> Iterator[list[SavedBlock]]:
        for page in self._pages.pages(changed=False):
            self._live += len(page)
            yield page

    def _mostly_dead(self, file: BlockFile) -> bool:
        if file.lines <= 2 * self._live + DEAD_MAX:
            return False
        self._live = self._memory.blocks_count()[0]
        return file.lines > 2 * self._live + DEAD_MAX

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

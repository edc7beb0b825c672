"""The processes of a run: starting them, hearing them, and stopping exactly those.

Invariants: a child is stopped by its own pid (and the process group that it leads), never by a name; when the demo
dies, its children end too: load and origin when their stdin closes, the gateway by a signal that the kernel sends.
"""
import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
ROOT = Path(__file__).parents[2]  # where `-m` finds our modules, wherever the demo was started
STOP_S = 4.0
_libc = ctypes.CDLL(None, use_errno=True)

Hear = Callable[[dict[str, Any]], None]


def _die_with_parent() -> None:
    """In the child, before exec: SIGTERM when the demo dies (prctl(2))."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """A process that this run has started."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, *, listens: bool) -> None:
        self.name = name
        self.process = process
        self.listens = listens  # to its stdin: it ends when that does
        self.last_words: deque[str] = deque(maxlen=12)  # of its stderr, for a hint when it fails
        self.tasks: list[asyncio.Task[None]] = []
        self.stopping = False

    @classmethod
    async def start(cls, name: str, command: Sequence[str], hear: Hear, spec: dict[str, Any] | None = None) -> "Child":
        """Start it in a process group of its own; a spec goes to its stdin, which it then minds; each JSON line of its
        stdout goes to `hear`."""
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            start_new_session=True, preexec_fn=_die_with_parent, limit=1 << 24, cwd=ROOT,
        )
        child = cls(name, process, listens=spec is not None)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        child.tasks = [
            asyncio.create_task(child._hear(process.stdout, hear)), asyncio.create_task(child._mind(process.stderr)),
        ]
        if spec is not None:
            process.stdin.write(json.dumps(spec).encode() + b"\n")
        return child

    @classmethod
    async def module(
        cls, module: str, hear: Hear, spec: dict[str, Any], name: str = "", into: Sequence[str] = ()
    ) -> "Child":
        """Start one of our own modules with this interpreter. `into`: words before it, that lead into a network."""
        command = [*into, sys.executable, "-m", module]
        return await cls.start(name or module.rsplit(".", 1)[-1], command, hear, spec)

    async def _hear(self, stream: asyncio.StreamReader, hear: Hear) -> None:
        while line := await stream.readline():
            try:
                message = json.loads(line)
            except ValueError:
                self.last_words.append(line.decode("utf-8", "replace").rstrip())
                continue
            if isinstance(message, dict):
                hear(message)

    async def _mind(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            if text := line.decode("utf-8", "replace").rstrip():
                self.last_words.append(text)

    @property
    def failed(self) -> bool:
        """It has ended, and not because it was told to or was done."""
        return not self.stopping and self.process.returncode not in (None, 0)

    def words(self) -> str:
        """Its last words in one line, without what it says whenever it starts."""
        said = [line.strip() for line in self.last_words if not line.startswith(("note:", "ready:"))]
        return " ".join(said[-4:]) or "it said nothing"

    async def done(self, timeout_s: float) -> bool:
        """Wait for it to end by itself and for everything that it said."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.process.wait()
                await asyncio.gather(*self.tasks)
            return True
        return False

    async def stop(self) -> None:
        """Close its stdin, then SIGTERM, then SIGKILL to its group: whichever is needed."""
        self.stopping = True
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.listens and await self.done(STOP_S):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                if number is signal.SIGKILL:
                    os.killpg(self.process.pid, number)
                elif self.process.returncode is None:
                    self.process.send_signal(number)
            if await self.done(STOP_S):
                return


class Nursery:
    """All children of a run; leaving it stops them, the last started first."""

    def __init__(self) -> None:
        self.children: list[Child] = []

    async def __aenter__(self) -> "Nursery":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def add(self, child: Child) -> Child:
        """Mind this one too."""
        self.children.append(child)
        return child

    async def stop(self) -> None:
        """Stop whatever still runs."""
        running, self.children = self.children[::-1], []
        await asyncio.gather(*(child.stop() for child in running))

    def failure(self) -> Child | None:
        """A child that has died on us."""
        return next((child for child in self.children if child.failed), None)

"""A log file, or stdout: finished lines appended to it.

Owns: the file, what was lost and why. Used by one thread at a time, and never by the supervisor's loop.
Invariants: writing never waits for a reader; a line is whole or, where the disk filled up in its middle, ended and
counted as lost; traffic goes on whatever happens here.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import time
from collections.abc import Sequence
from typing import Protocol

from scrubber.server.trouble import Trouble

REOPEN_EVERY_S = 1.0
STDOUT = "-"


class Sink(Protocol):
    """A destination of lines. Nothing here raises for what the destination does; nothing waits for it."""

    name: str
    lines: int  # written
    lines_lost: int  # could not be written
    error: str  # why the last write failed; "" when it did not

    def write(self, lines: Sequence[bytes]) -> None:
        """Append these lines (each without its line end)."""

    def append(self, data: bytes, lines: int) -> None:
        """Append so many finished lines, each with its line end."""

    def flush(self) -> None:
        """Go on with what waits, if anything does."""

    def reopen(self) -> None:
        """What was moved away is let go: the next line goes to its name."""

    def close(self) -> None:
        """The end of it."""


class AccessLog:
    """`path` "-": stdout."""

    def __init__(self, path: str, logger: logging.Logger) -> None:
        self.name = self.path = path
        self.lines = 0  # written
        self.lines_lost = 0  # could not be written
        self.error = ""  # why the last write failed; "" when it did not
        self._log = logger
        self._fd = -1
        self._torn = False
        self._looked = 0.0
        self._trouble = Trouble()

    def write(self, lines: Sequence[bytes]) -> None:
        """Append these lines (each without its line end)."""
        self.append(b"".join([line + b"\n" for line in lines]), len(lines))

    def append(self, data: bytes, lines: int) -> None:
        """Append so many finished lines, each with its line end."""
        if not lines:
            return
        try:
            self._open_if_needed()
            start = b"\n" if self._torn else b""
            written = self._write_all(start + data if start else data) - len(start)
            whole = min(data[: max(written, 0)].count(b"\n"), lines) if written < len(data) else lines
        except OSError as error:
            whole, self.error = 0, error.strerror or str(error)
        self.lines += whole
        if lost := lines - whole:
            self.lines_lost += lost
            self._say(lost)

    def flush(self) -> None:
        """Nothing waits here."""

    def reopen(self) -> None:
        """Let go of the file and open its name, now: whoever moved it away finds the new one there."""
        self.close()
        self.error = ""
        try:
            self._open_if_needed()
        except OSError as error:
            self.error = error.strerror or str(error)

    def close(self) -> None:
        if self._fd >= 0 and self.path != STDOUT:
            os.close(self._fd)
        self._fd = -1

    def _open_if_needed(self) -> None:
        """Open, and open again where the file was moved away (logrotate)."""
        if self.path == STDOUT:
            self._fd = 1
            return
        now = time.monotonic()
        if self._fd >= 0 and now - self._looked >= REOPEN_EVERY_S:
            self._looked = now
            here = os.fstat(self._fd)
            try:
                there = os.stat(self.path)
            except OSError:
                there = None
            if there is None or (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
                self.close()
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            self._fd = os.open(self.path, flags, 0o640)
            self._torn = False

    def _write_all(self, data: bytes) -> int:
        """Bytes of `data` that went out; an error after some of them is kept in `error`, not raised."""
        view, before = memoryview(data), len(data)
        self.error = ""
        while view:
            try:
                view = view[self._write_some(view) :]
            except OSError as error:
                self.error = error.strerror or str(error)
                break
        written = before - len(view)
        if written:
            self._torn = not data[:written].endswith(b"\n")
        return written

    def _write_some(self, view: memoryview) -> int:
        if self.path != STDOUT:
            return os.write(self._fd, view)  # O_NONBLOCK where that means anything
        if not select.select([], [self._fd], [], 0)[
            1
        ]:  # stdout is shared with others: its flags are not ours to change
            raise BlockingIOError(errno.EAGAIN, "its reader is too slow")
        return os.write(self._fd, view[: select.PIPE_BUF])

    def _say(self, lost: int) -> None:
        if lost := self._trouble.tell(lost, time.monotonic()):
            self._log.error("access log %s: %s; %d lines lost", self.path, self.error, lost)


def check_writable(path: str) -> str | None:
    """Why an access log cannot be written there; None: it can. Leaves an empty file at most."""
    if path == STDOUT:
        return None
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o640)
    except OSError as error:
        return error.strerror or str(error)
    os.close(fd)
    return None

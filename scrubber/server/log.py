"""What the processes say about themselves: one line each on stderr. (Requests and acts go to the access log.)

Owns: the form of those lines: time (UTC), who, level, message. Invariant: a reader of stderr that is slow or gone never
holds a process up: its line is lost instead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time

STDERR = 2


class StderrHandler(logging.Handler):
    """Writes where that does not wait. (A pipe that polls writable takes PIPE_BUF bytes at once.)"""

    def emit(self, record: logging.LogRecord) -> None:
        data = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            while data and select.select([], [STDERR], [], 0)[1]:
                data = data[os.write(STDERR, data[: select.PIPE_BUF]) :]


def setup(role: str, slot: int = -1, level: int = logging.INFO) -> logging.Logger:
    """The logger of this process, named `role` or `role[slot]`."""
    name = role if slot < 0 else f"{role}[{slot}]"
    handler = StderrHandler()
    formatter = logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    return logging.getLogger(name)

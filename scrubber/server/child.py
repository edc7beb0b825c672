"""What every child of the keeper does first: leave signals to it, take its start message, give up privileges, end
with its parent.

Owns: the process-wide settings that supervisor and worker share, and the beat of a child that has no gauges slot.
Invariant: a child never outlives its keeper, and no signal but SIGKILL and SIGSTOP reaches it: the keeper says when
to end.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Collection, Iterable
from importlib import import_module

from scrubber.server import privilege
from scrubber.server.channel import Channel
from scrubber.server.plan import BEAT_BYTES, Start

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
START_WAIT_S = 10.0


def begin(
    argv: list[str], before: Callable[[Start], None] = lambda _: None, keep: Collection[int] = ()
) -> tuple[Channel, Start]:
    """The channel named by the last argument, and what came over it first. SystemExit: this was not started by a
    keeper. All that is imported later has to be readable for whom we are from then on; `before` is called before.
    `keep`: capabilities that stay."""
    for each in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(each, signal.SIG_IGN)
    try:
        channel = Channel.from_fd(int(argv[-1]))
        start = Start.from_received(channel.wait(START_WAIT_S))
    except (OSError, ValueError, IndexError) as error:
        sys.exit(f"this program is started by the keeper only ({error})\nTry: scrubber run GATEWAY.toml")
    before(start)
    privilege.give_up(start.user, keep)
    _bind_to_parent(start)  # a death signal is forgotten when privileges change
    return channel, start


def import_as_root(names: Iterable[str]) -> None:
    """What only root may be able to read is imported before we are somebody else."""
    if os.geteuid() == 0:
        for name in names:
            import_module(name)


def name_process(name: str) -> None:
    """As ps and top show it: "scrub-" and the name, 15 bytes in all."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"scrub-{name}"[:15].encode(), 0, 0, 0)


def end_with_parent() -> None:
    """Whoever is our parent now: its death is ours."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _bind_to_parent(start: Start) -> None:
    end_with_parent()
    short = {"supervisor": "super", "enforcer": "enforce"}
    name_process(short.get(start.role, f"{start.role}{start.slot}"))
    if os.getppid() != start.keeper_pid:
        sys.exit("the keeper is gone")


class Beat:
    """A beat in a page of its own (8 bytes, written whole: aligned and no longer than a machine word)."""

    def __init__(self, fd: int) -> None:
        self._page = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("Q")

    def __call__(self) -> None:
        self._page[0] = time.monotonic_ns()

    @staticmethod
    def read(page: mmap.mmap, offset: int) -> int:
        """The beat at an offset, in ns of CLOCK_MONOTONIC; 0: none yet."""
        return int(struct.unpack_from("<Q", page, offset)[0])


assert struct.calcsize("<Q") == BEAT_BYTES

"""What the service manager is told: sd_notify(3), by hand, over NOTIFY_SOCKET.

Owns: the variables of that protocol. Invariants: nothing here waits or fails: a manager that does not listen misses
something; children never see its socket.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """One process' side. Without NOTIFY_SOCKET it says nothing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")
        self._beat_ns = _watchdog_ns(environ) // 2
        self._beaten_ns = 0

    @property
    def managed(self) -> bool:
        """Whether a service manager follows us."""
        return bool(self._path)

    def say(self, *lines: str) -> None:
        """Each line as KEY=VALUE."""
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), address)

    def reloading(self) -> None:
        """READY=1 is to follow, whether the reload was refused or not."""
        self.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def beat(self, now_ns: int) -> None:
        """Call often: says WATCHDOG=1 twice in the manager's time."""
        if self._beat_ns and now_ns - self._beaten_ns >= self._beat_ns:
            self._beaten_ns = now_ns
            self.say("WATCHDOG=1")


def _watchdog_ns(environ: Mapping[str, str]) -> int:
    """0: nobody watches, or not this process."""
    text, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not text.isascii() or not text.isdigit() or (pid and pid != str(os.getpid())):
        return 0
    return int(text) * 1000


def for_children(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment in which nobody is followed."""
    return {name: value for name, value in environ.items() if name not in _OURS}


def for_successor(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the process that will be followed instead of this one."""
    return {name: value for name, value in environ.items() if name != "WATCHDOG_PID"}

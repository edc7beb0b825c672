"""Connections of TCP from the attack's sources, one after the other, on one core: each until it is reset.

Invariant: every connection that was begun within the bounds is counted once, as reset or as something else.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from itertools import cycle

from bench.load.guard import BIND_ADDRESS_NO_PORT, raise_nofile
from bench.macro.drop.attack import ATTEMPTS_CEILING, Attack, demand_short

AT_ONCE = 64
WAIT_S = 5.0  # for the last ones


class Calls:
    def __init__(self, attack: Attack) -> None:
        raise_nofile()
        self._target = (attack.target, attack.port)
        self._sources = cycle([(address, 0) for address in attack.addresses()])
        self._epoll = select.epoll()
        self._open: dict[int, socket.socket] = {}

    def run(self, seconds: float) -> dict[str, float]:
        """How many were begun, how many of these were reset, in which time."""
        demand_short(seconds)
        attempts = reset = 0
        begun = time.monotonic()
        while attempts < ATTEMPTS_CEILING and time.monotonic() < begun + seconds:
            while len(self._open) >= AT_ONCE:
                reset += self._ended(WAIT_S)
            self._begin()
            attempts += 1
        took = time.monotonic() - begun
        end = time.monotonic() + WAIT_S
        while self._open and time.monotonic() < end:
            reset += self._ended(0.1)
        for call in self._open.values():
            call.close()
        self._open.clear()
        return {"begun": attempts, "reset": reset, "seconds": took}

    def _begin(self) -> None:
        call = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        call.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        call.bind(next(self._sources))
        call.connect_ex(self._target)
        self._open[call.fileno()] = call
        self._epoll.register(call, select.EPOLLIN)  # a reset makes it readable; an open connection alone does not

    def _ended(self, wait_s: float) -> int:
        """Closes those that ended; how many of them were reset."""
        reset = 0
        for fd, _ in self._epoll.poll(wait_s):
            with self._open.pop(fd) as call:
                reset += call.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
        return reset

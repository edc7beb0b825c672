"""What the tests of XDP share: addresses, doors as text, backends on the loopback interface of a namespace.

Frames go through BPF_PROG_TEST_RUN, the kernel's own run of the loaded program; no wire is needed for that.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable

from scrubber.enforce import bpf
from scrubber.enforce.backend import Door, Drop, Settings
from scrubber.enforce.net import net_of
from scrubber.enforce.xdp import Xdp
from scrubber.enforce.xdp_program import PASS, Assembler
from tests.net import frames
from tests.net.frames import (
    PORT,
)
from tests.net.space import Space
from tests.wanted import lacking

Spaces = Callable[[str], Space]

GATE4, GATE6 = "198.18.0.1", "2001:db8::1"
CLIENT4, CLIENT6 = "198.18.1.1", "2001:db8:1:1::7"
OTHER4, OTHER6 = "198.18.1.2", "2001:db8:1:2::7"
HOSTS = [net_of("198.18.1.1"), net_of("2001:db8:1:1::/64")]
HOUR_NS = 3600 * 10**9
PATIENCE_S = 10.0


def at(*listening: tuple[str, int]) -> Door:
    """A door at addresses as text; "4" and "6": every one of that family."""
    return Door(
        tuple(
            (int(text), b"", port)
            if text in ("4", "6")
            else (
                6 if ":" in text else 4,
                socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text),
                port,
            )
            for text, port in listening
        )
    )


DOORS = (at((GATE4, PORT), (GATE6, PORT)),)


def until(seconds: float = 3600, doors: int = 1) -> Drop:
    return Drop(time.monotonic_ns() + int(seconds * 1e9), doors)


def now() -> int:
    return time.monotonic_ns()


def demand_bpf() -> None:
    """Root in a container may have to do without bpf(2)."""
    nothing = Assembler()
    nothing.exit(PASS)
    try:
        os.close(bpf.load_xdp(nothing.assembled(), "tried"))
    except OSError as error:
        lacking("XDP", f"bpf(2) said: {error.strerror}")


class Opener:
    """Opens backends for frames that come by no wire. One at a time: an interface has one program."""

    def __init__(self, space: Space, stack: contextlib.ExitStack) -> None:
        demand_bpf()
        self._space, self._stack = space, stack

    def __call__(self, *doors: Door, hosts_max: int = 1024, prefixes_max: int = 256) -> Xdp:
        with self._space.inside():
            backend = Xdp(Settings(doors or DOORS, ("lo",), hosts_max, prefixes_max))
        self._stack.callback(backend.close, withdraw=True)
        return backend


def answer(backend: Xdp, frame: bytes) -> int:
    return frames.run(backend.program, frame)[0]


def put(backend: Xdp, *texts: str, drop: Drop | None = None) -> None:
    assert backend.apply({net_of(text): drop or until() for text in texts}, (), now()) == {}

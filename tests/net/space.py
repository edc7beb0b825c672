"""Network namespaces that a test makes for itself, and wires between them. Nothing outside of them is touched.

Needs root and iproute2; `spaces` (tests/net/conftest.py) skips with a reason elsewhere. Names begin with "scrub-"; all
are gone after the test, with whatever runs in them ended by those who started it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from pyroute2 import netns

from tests.wanted import program

_numbers = itertools.count()


class Space:
    """A network namespace. `inside`: this thread works in it for a while."""

    def __init__(self, label: str = "space") -> None:
        self.name = f"scrub-{os.getpid()}-{next(_numbers)}-{label}"
        netns.create(self.name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words: str) -> str:
        """`ip WORDS` in it; fails with what ip said."""
        return self.run(program("ip"), *words)

    def run(self, *argv: str, **how: Any) -> str:
        """What it printed. AssertionError: it failed."""
        done = subprocess.run([*self.into(), *argv], capture_output=True, text=True, check=False, timeout=60, **how)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def popen(self, *argv: str, **how: Any) -> subprocess.Popen[bytes]:
        """Started in it; the caller ends it."""
        return subprocess.Popen([*self.into(), *argv], **how)

    def into(self) -> list[str]:
        """Words before a command that is to run in it."""
        return [program("ip"), "netns", "exec", self.name]

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that this thread makes meanwhile are in it, and stay so."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            netns.setns(self.name, flags=0)  # one that is gone is not made anew
            yield
        finally:
            netns.setns(before)
            os.close(before)

    def close(self) -> None:
        netns.remove(self.name)


def wire(a: Space, a_end: str, b: Space, b_end: str) -> None:
    """A veth pair, up. An end is its name and addresses: "out 10.1.0.1/24 fd00:1::1/64"."""
    ends = [(a, *a_end.split()), (b, *b_end.split())]
    a.ip("link", "add", ends[0][1], "type", "veth", "peer", "name", ends[1][1], "netns", b.name)
    for space, name, *addresses in ends:
        for address in addresses:
            space.ip("address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
        space.ip("link", "set", name, "up")

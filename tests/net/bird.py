"""BIRD in a namespace, and what an upstream router's kernel does meanwhile."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from scrubber.enforce.net import Net
from scrubber.enforce.netlink import messages
from tests.net.space import Space
from tests.wanted import program

WITHIN_S = 15.0
NEW, GONE = 24, 25  # RTM_NEWROUTE, RTM_DELROUTE
BLACKHOLE = 6  # RTN_BLACKHOLE


class Bird:
    """`text` as its configuration; ended by `kill`.

    It works in `home`, and its socket's name is relative to it: such a path has 107 bytes, and a test's home may need
    all of them.
    """

    def __init__(self, space: Space, home: Path, text: str) -> None:
        self.space, self.home, self.socket = space, home, f"{space.name}.sock"
        self.file, self.log, self.complaint = (home / f"{space.name}.{end}" for end in ("conf", "log", "stderr"))
        self.file.write_text(f'log "{self.log}" all;\n{text}')
        self.start()

    def start(self) -> None:
        argv = [program("bird"), "-f", "-c", str(self.file), "-s", self.socket]
        with self.complaint.open("wb") as complaint:
            self.process = self.space.popen(*argv, stderr=complaint, cwd=self.home)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, words: str) -> str:
        """What birdc says; empty: nobody answers yet."""
        command = [program("birdc"), "-s", self.socket, *words.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10, cwd=self.home)
        return done.stdout

    def wait_established(self, sessions: int, within_s: float = WITHIN_S) -> None:
        until(lambda: self._established() == sessions, "sessions are up", within_s)

    def _established(self) -> int:
        assert self.process.poll() is None, f"BIRD ended: {self.complaint.read_text()}"
        return self.ask("show protocols").count("Established")


class Told:
    """Hears what routes the kernel of a namespace gets and loses."""

    def __init__(self, space: Space) -> None:
        with space.inside():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0x40 | 0x400))
        self._socket.settimeout(WITHIN_S)

    def wait(self, kind: int, nets: set[Net]) -> float:
        """When the last of these blackholes had come or gone."""
        left = set(nets)
        while left:
            for what, _, _, _, body in messages(self._socket.recv(1 << 16)):
                if what == kind and body[7] == BLACKHOLE:
                    left.discard(_destination(body))
        return time.monotonic()

    def close(self) -> None:
        self._socket.close()


def _destination(body: bytes) -> Net:
    at = 12
    while at < len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if kind == 1:
            return body[at + 4 : at + length] + body[1:2]
        at += (length + 3) & ~3
    return b""


def until(holds: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
    """Asks again and again."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.02)

"""A gateway and its clients, each in a namespace, with a wire between them: what a backend is tried on.

Owns addresses and listening sockets. Drops are seen as a client sees them: by TCP connections that open or do not.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from scrubber.enforce.backend import Backend, Door, Drop, Settings, Unavailable
from scrubber.enforce.net import Net, net_of
from tests.net.backends import BACKENDS, DEVICE
from tests.net.space import Space, wire
from tests.wanted import lacking, program

NS = 1_000_000_000
PATIENCE_S = 10.0  # for what must come; a busy machine fails nothing
QUIET_S = 0.04  # for what must not come, after a witness got through
FIRST, SECOND, NO_DOOR = 8001, 8002, 8003  # ports


@dataclass(frozen=True)
class Kin:
    """Addresses of one family. The prefix holds client and neighbour, not the outsider."""

    family: int
    gate: str
    client: str
    net: Net
    neighbour: str
    neighbour_net: Net
    prefix: Net
    outsider: str
    many: Callable[[int], Net]  # the host by number, none of those above


def _many_v4(number: int) -> Net:
    return (0x0A000000 + number).to_bytes(4, "big") + b"\x20"


def _many_v6(number: int) -> Net:
    return (0x20010DB8FFFF0000 + (number << 32 & 0xFFFF) + number).to_bytes(8, "big") + bytes(8) + b"\x40"


V4 = Kin(
    4,
    "198.18.0.1",
    "198.18.1.1",
    net_of("198.18.1.1"),
    "198.18.1.2",
    net_of("198.18.1.2"),
    net_of("198.18.1.0/24"),
    "198.18.2.1",
    _many_v4,
)
V6 = Kin(
    6,
    "2001:db8::1",
    "2001:db8:1:1::7",
    net_of("2001:db8:1:1::/64"),
    "2001:db8:1:2::7",
    net_of("2001:db8:1:2::/64"),
    net_of("2001:db8:1::/48"),
    "2001:db8:2:1::7",
    _many_v6,
)
KINS = (V4, V6)


def door(port: int, *, anywhere: bool = False) -> Door:
    """On the gateway's addresses, or on every one."""
    return Door(
        tuple((kin.family, b"" if anywhere else socket.inet_pton(_af(kin.gate), kin.gate), port) for kin in KINS)
    )


def _af(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@dataclass
class Stage:
    """`gate` listens on three ports, two of them doors; `peer` has the clients' addresses."""

    gate: Space
    peer: Space
    doors: tuple[Door, ...] = (door(FIRST), door(SECOND, anywhere=True))
    _opened: list[Backend] = field(default_factory=list)
    _sockets: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def open(self, name: str, *, hosts_max: int = 65536, prefixes_max: int = 1024) -> Backend:
        """A backend that works in the gateway's namespace; closed with the stage."""
        with self.gate.inside():
            try:
                backend = BACKENDS[name](Settings(self.doors, hosts_max=hosts_max, prefixes_max=prefixes_max))
            except Unavailable as error:
                lacking(f"what {name} takes", str(error))
        self._opened.append(backend)
        return backend

    def close(self, backend: Backend, *, withdraw: bool) -> None:
        self._opened.remove(backend)
        backend.close(withdraw=withdraw)

    def end(self) -> None:
        for backend in self._opened:
            backend.close(withdraw=False)
        self._sockets.close()

    def listen(self, port: int) -> None:
        for kin in KINS:
            with self.gate.inside():
                ear = self._sockets.enter_context(socket.socket(_af(kin.gate), socket.SOCK_STREAM))
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            ear.bind((kin.gate, port))
            ear.listen(1024)

    def reaches(self, source: str, port: int, within_s: float = PATIENCE_S) -> bool:
        """Whether a connection opens, with all the time that a busy machine may take."""
        with self._call(source, port) as call:
            return _opened(call, within_s)

    def shut(self, source: str, port: int, *, witness: str) -> bool:
        """Whether no connection opens while one of the witness does, begun after it."""
        with self._call(source, port) as call:
            assert self.reaches(witness, port), f"{witness} did not reach port {port}: nothing can be said of {source}"
            return not _opened(call, QUIET_S)

    def datagram_arrives(self, source: str, port: int) -> bool:
        """UDP to the same address and port."""
        gate = (V6 if ":" in source else V4).gate
        with self.gate.inside():
            ear = socket.socket(_af(source), socket.SOCK_DGRAM)
        with self.peer.inside():
            call = socket.socket(_af(source), socket.SOCK_DGRAM)
        with ear, call:
            ear.bind((gate, port))
            call.bind((source, 0))
            call.sendto(b"hello", (gate, port))
            return bool(select.select([ear], [], [], PATIENCE_S)[0])

    @contextlib.contextmanager
    def _call(self, source: str, port: int) -> Iterator[socket.socket]:
        with self.peer.inside():
            call = socket.socket(_af(source), socket.SOCK_STREAM)
        with call:
            call.setblocking(False)
            call.bind((source, 0))
            call.connect_ex(((V6 if ":" in source else V4).gate, port))
            yield call


def _opened(call: socket.socket, wait_s: float) -> bool:
    _, ready, _ = select.select([], [call], [], wait_s)
    return bool(ready) and call.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def build(make: Callable[[str], Space]) -> Stage:
    gate, peer = make("gate"), make("peer")
    wire(gate, f"{DEVICE} {V4.gate}/15 {V6.gate}/32", peer, "eth0")
    # Many at once: a process an address would take most of a test's time.
    lines = [
        f"address add {address}/{32 if ':' in address else 15} dev eth0 {'nodad' if ':' in address else ''}\n"
        for kin in KINS
        for address in (kin.client, kin.neighbour, kin.outsider)
    ]
    peer.run(program("ip"), "-batch", "-", input="".join(lines))
    stage = Stage(gate, peer)
    for port in (FIRST, SECOND, NO_DOOR):
        stage.listen(port)
    return stage


def until(seconds: float, doors: int = 0b01) -> Drop:
    """A drop that ends so far from now."""
    return Drop(time.monotonic_ns() + int(seconds * NS), doors)


def now() -> int:
    return time.monotonic_ns()


def eventually(what: Callable[[], bool], wait_s: float = PATIENCE_S) -> bool:
    """Whether it comes true in that time."""
    deadline = time.monotonic() + wait_s
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Holder:
    """A process of its own that opens a backend and puts drops, to be killed."""

    def __init__(self, stage: Stage, name: str, put: dict[Net, Drop]) -> None:
        ready, tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(stage, name, put, tell)
        os.close(tell)
        said = os.read(ready, 4096).decode()
        os.close(ready)
        if said != "held":
            os.waitpid(self.pid, 0)
            raise AssertionError(f"the process that should hold the drops said: {said!r}")

    def _live(self, stage: Stage, name: str, put: dict[Net, Drop], tell: int) -> NoReturn:
        try:
            backend = stage.open(name)
            refused = backend.apply(put, (), now())
            os.write(tell, repr(refused).encode() if refused else b"held")
            while True:
                signal.pause()
        except BaseException as error:
            os.write(tell, repr(error).encode())
        finally:
            os._exit(1)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

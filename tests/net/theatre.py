"""Everybody at once: people and attackers out there, the provider's router, the gateway with its origin and its BIRD.

Owns addresses and wires, and what is counted where. The attackers' addresses (198.18.0.0/15, RFC 2544) exist in the
outer namespace only; the gateway is told nothing of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from scrubber.enforce.bird_config import Neighbour, provider_config
from scrubber.enforce.net import net_of
from tests.e2e.support import ROOT, Gateway, environment
from tests.net.bird import Bird
from tests.net.space import Space, wire
from tests.readable import readable
from tests.wanted import program

SITE, VICTIM, BESIDE = "203.0.113.10", "203.0.113.66", "203.0.113.67"
PORT = 8080
SOURCE_COMMUNITY = (64513, 667)
# The provider's second session takes rules; BIRD keeps them, and enforces none.
ROUTER = """
router id 10.1.0.2;
protocol device { }
protocol kernel { ipv4 { import none; export all; }; }
flow4 table four;
protocol bgp rules {
  local 10.1.0.2 as 64513;
  neighbor 10.1.0.3 as 64512;
  passive;
  flow4 { table four; import all; export none; };
}
"""
UPSTREAM = """
[enforcer]
interfaces = ["north"]
protects = ["203.0.113.0/24"]
quiet = "0s"
{enforcer}
[enforcer.upstream]
router_id = "10.1.0.1"
asn = 64512
source_community = "64513:667"
link_interfaces = ["north"]
link_rate = "{link_rate}"
announcements_max = 64
announcements_per_min = 600
[[enforcer.upstream.neighbour]]
address = "10.1.0.2"
asn = 64513
{upstream}
"""
GATEWAY = """
workers = 1
state_dir = "state"
mandates = ["mandate.toml"]
allow_unsigned = true
{upstream}
[[listener]]
address = "{site}:{port}"
[[area]]
name = "site"
default = true
origins = ["127.0.0.1:{origin}"]
"""


class Theatre:
    """Wired, with the origin and the provider's BIRD running; `play` starts the gateway and its BIRD."""

    def __init__(self, spaces: Callable[[str], Space], home: Path, close: contextlib.ExitStack) -> None:
        self.gate, self.upstream, self.out = spaces("gate"), spaces("upstream"), spaces("out")
        self._home, self._close, self.at_end = home, close, close.callback
        wire(self.gate, "north 10.1.0.1/24 10.1.0.3/24", self.upstream, "south 10.1.0.2/24")
        wire(self.upstream, "abroad 10.2.0.1/24", self.out, "home 10.2.0.2/24")
        # A provider that drops by source does so by reverse path.
        for name in ("ip_forward", "conf.abroad.rp_filter"):
            self.upstream.run("sysctl", "-qw", f"net.ipv4.{name}=1")
        for address in (SITE, VICTIM, BESIDE):
            self.gate.ip("address", "add", f"{address}/32", "dev", "lo")
        self.gate.ip("route", "add", "default", "via", "10.1.0.2")
        self.out.ip("route", "add", "local", "198.18.0.0/15", "dev", "lo")
        self.out.ip("route", "add", "default", "via", "10.2.0.1")
        self.upstream.ip("route", "add", "198.18.0.0/15", "via", "10.2.0.2")
        self.upstream.ip("route", "add", "203.0.113.0/24", "via", "10.1.0.1")
        customer = Neighbour("10.1.0.1", 64512)
        # It waits for ours: a first try before ours is there would be followed by a pause of a minute.
        text = provider_config(64513, customer, [net_of("203.0.113.0/24")], SOURCE_COMMUNITY, passive=True)
        self.theirs = Bird(self.upstream, home, ROUTER + text)
        close.callback(self.theirs.kill)
        self._origin = self.gate.popen(
            sys.executable,
            "tests/e2e/origin.py",
            "origin",
            stdout=subprocess.PIPE,
            env={**os.environ, "ORIGIN_PORT": "0"},
            cwd=ROOT,
        )
        close.callback(self._end_origin)

    def _end_origin(self) -> None:
        self._origin.terminate()
        self._origin.communicate(timeout=10)

    def play(
        self,
        gateway: Callable[..., Gateway],
        mandate: str,
        *,
        enforcer: str = "",
        upstream: str = "",
        link_rate: str = "0B/s",
        command: Sequence[str] = (),
        **how: Any,
    ) -> Gateway:
        """The gateway (`command`: words before its own), and its BIRD by the configuration that it prints."""
        assert self._origin.stdout is not None
        port = int(self._origin.stdout.readline())
        settings = UPSTREAM.format(enforcer=enforcer, upstream=upstream, link_rate=link_rate)
        text = GATEWAY.format(upstream=settings, site=SITE, port=PORT, origin=port)
        running = gateway(text=text, mandate=mandate, command=[*self.gate.into(), *command], **how)
        argv = [sys.executable, "-m", "scrubber", "enforce", "bird-config", str(running.file)]
        printed = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment()).stdout
        self.ours = Bird(self.gate, self._home, printed)
        self._close.callback(self.ours.kill)
        self.ours.wait_established(1, 40)
        return running

    def blackholes(self) -> set[str]:
        """That the provider's kernel has."""
        found = json.loads(self.upstream.ip("-j", "route", "show", "proto", "bird") or "[]")
        return {each["dst"] for each in found if each.get("type") == "blackhole"}

    def rules(self) -> list[str]:
        """FlowSpec rules that the provider's router has, as it writes them."""
        return re.findall(r"^(flow4 \{ .*? \})", self.theirs.ask("show route table four"), re.MULTILINE)

    def arrived(self) -> int:
        """Packets that came in over the gateway's line so far."""
        (link,) = json.loads(self.gate.ip("-j", "-s", "link", "show", "dev", "north"))
        return int(link["stats64"]["rx"]["packets"])

    def arriving_per_s(self, seconds: float = 1.0) -> float:
        before = self.arrived()
        time.sleep(seconds)
        return (self.arrived() - before) / seconds

    def get(self, source: str, timeout_s: float = 5.0) -> int:
        """The status of a request from that address; OSError: none came back."""
        with self.out.inside():
            sock = socket.create_connection((SITE, PORT), timeout_s, (source, 0))
        with sock:
            sock.sendall(b"GET /bytes/5 HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n")
            return int(sock.recv(4096).split()[1])


@pytest.fixture
def theatre(spaces: Callable[[str], Space], tmp_path: Path) -> Iterator[Theatre]:
    """Skips where there is no BIRD."""
    program("bird")
    with contextlib.ExitStack() as close:
        yield Theatre(spaces, tmp_path, close)


class People:
    """Come one after the other, from addresses of their own, until they are told to go."""

    def __init__(self, theatre: Theatre, sources: Sequence[str], pause_s: float = 0.05) -> None:
        self.served = 0
        self.failed: list[str] = []
        self._theatre, self._sources, self._pause_s = theatre, sources, pause_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._come, daemon=True)
        theatre.at_end(self.go)
        self._thread.start()

    def _come(self) -> None:
        number = 0
        while not self._over.wait(self._pause_s):
            source = self._sources[number % len(self._sources)]
            number += 1
            try:
                status = self._theatre.get(source)
            except OSError as error:
                self.failed.append(f"{source}: {error!r}")
                continue
            if status == 200:
                self.served += 1
            else:
                self.failed.append(f"{source}: {status}")

    def go(self) -> None:
        self._over.set()
        self._thread.join(10)


class Packets:
    """A flood without connections: TCP segments with data, from each of these in turn, until the end."""

    def __init__(self, theatre: Theatre, sources: Sequence[str], per_s: int, *, bytes_each: int = 1000) -> None:
        self.sent = 0
        self._packets = [_segment(source, SITE, PORT, bytes(bytes_each)) for source in sources]
        self._per_s = per_s
        with theatre.out.inside():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        theatre.at_end(self.end)
        self._thread.start()

    def _send(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(0.005):
            due = min(int((time.monotonic() - begun) * self._per_s), self.sent + 1000)
            for number in range(self.sent, due):
                with contextlib.suppress(OSError):  # a full queue
                    self._socket.sendto(self._packets[number % len(self._packets)], (SITE, 0))
            self.sent = due

    def end(self) -> None:
        self._over.set()
        self._thread.join(10)
        self._socket.close()


def _segment(source: str, target: str, port: int, data: bytes) -> bytes:
    """An IPv4 packet with a TCP segment that belongs to no connection (RFC 791, RFC 9293)."""
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(data), 0, 0, 64, socket.IPPROTO_TCP, 0) + ends
    tcp = struct.pack("!HHIIBBHHH", 40000, port, 1, 1, 5 << 4, 0x18, 1000, 0, 0)
    pseudo = ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp) + len(data))
    tcp = tcp[:16] + struct.pack("!H", _sum(pseudo + tcp + data)) + tcp[18:]
    return head + tcp + data


def _sum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])) + (data[-1] << 8 if len(data) % 2 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def flood(theatre: Theatre, sources: Sequence[str], requests: int, *, at_once: int = 256) -> None:
    """Each asks for so much over one connection, twice, with a pause between in which a ladder may climb."""
    request = b"GET /bytes/5 HTTP/1.1\r\nHost: site.test\r\n\r\n" * requests
    for at in range(0, len(sources), at_once):
        with contextlib.ExitStack() as close:
            open_ = []
            for source in sources[at : at + at_once]:
                with theatre.out.inside():
                    open_.append(close.enter_context(socket.socket()))
                # Closed by a reset: what is dropped would be sent again and again, and keep its source shut out.
                open_[-1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                open_[-1].setblocking(False)
                open_[-1].bind((source, 0))
                open_[-1].connect_ex((SITE, PORT))
            for _ in range(2):
                time.sleep(0.1)
                open_ = [sock for sock in open_ if _took(sock, request)]
            _hear_out(open_, 2 * requests)  # who hangs up takes back what was not looked at yet


def _took(sock: socket.socket, data: bytes) -> bool:
    """Whether it could be sent: not where it was refused, cut off, or nobody answers."""
    try:
        return sock.send(data) == len(data)
    except OSError:
        return False


def _hear_out(sockets: Sequence[socket.socket], answers: int, wait_s: float = 2.0) -> None:
    """Until each of them has so many answers or is closed, or some time has passed."""
    left = dict.fromkeys(sockets, 0)
    deadline = time.monotonic() + wait_s
    while left and time.monotonic() < deadline:
        for sock in readable(left, 0.1):
            try:
                data = sock.recv(1 << 16)
            except OSError:
                data = b""
            left[sock] += data.count(b"HTTP/1.1 ")
            if not data or left[sock] >= answers:
                del left[sock]

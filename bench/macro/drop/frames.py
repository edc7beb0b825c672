"""A flood of SYN frames, as many as one core can make: each from another source and port, at random.

An XDP program makes each frame out of one, and sends it to the device (BPF_PROG_TEST_RUN with live frames, Linux 5.18).
So a frame comes to the other end of a veth pair without an skb, as it would from a network card: what stops it before
it has one is seen to be cheaper.

Owns the frame, the program, its run. Invariant: all that varies is the source, within the attack's, and its port; the
checksums hold.
"""

from __future__ import annotations

import ctypes
import ipaddress
import signal
import socket
import struct
import time
from typing import NamedTuple

from bench.load.guard import LoadRefused
from bench.macro.drop.attack import ATTEMPTS_CEILING, Attack, demand_short
from scrubber.enforce import bpf
from scrubber.enforce.xdp_program import DROP, R0, R1, R2, R3, R6, R7, R8, Assembler, H, Reg, W

_BATCH = 64  # frames that are made before they are sent
_TEST_RUN, _LIVE_FRAMES = 10, 1 << 1
_RANDOM, _REDIRECT_TO = 7, 23  # helpers
_REDIRECT = 4

_IP_SUM_AT, _SOURCE_LOW_AT, _SOURCE_PORT_AT, _TCP_SUM_AT = 24, 28, 34, 50
_FRAME_BYTES = 54


class Sums(NamedTuple):
    """What the checksums begin with (RFC 1071): the 16-bit words that stay the same, in this machine's byte order."""

    ip: int
    tcp: int


def syn(attack: Attack, to: bytes, source: bytes) -> tuple[bytes, Sums]:
    """The frame, without what varies; `to`, `source`: Ethernet addresses."""
    ends = ipaddress.IPv4Network(attack.sources).network_address.packed[:2] + bytes(2)
    ends += ipaddress.IPv4Address(attack.target).packed
    ip = struct.pack("!BBHHHBBH", 4 << 4 | 5, 0, 40, 1, 0x4000, 64, socket.IPPROTO_TCP, 0) + ends
    tcp = struct.pack("!HHIIBBHHH", 0, attack.port, 1, 0, 5 << 4, 2, 1024, 0, 0)
    sums = Sums(folded(ip), folded(ends + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp)) + tcp))
    return to + source + struct.pack("!H", 0x0800) + ip + tcp, sums


def folded(words: bytes) -> int:
    """The ones' complement sum."""
    total: int = sum(struct.unpack(f"={len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def program(attack: Attack, sums: Sums, device: int) -> bytes:
    """Varies a frame and sends it to the device of that index. R6: the frame, R7: random, R8: what has to be added."""
    sources = ipaddress.IPv4Network(attack.sources)
    first, mask = int(sources.network_address) & 0xFFFF, int(sources.hostmask)
    a = Assembler()
    a.load(W, R6, R1, 0)
    a.load(W, R2, R1, 4)
    a.address(R3, R6, _FRAME_BYTES)
    a.jump(R3, ">", R2, "short")
    a.call(_RANDOM)
    a.mov(R7, R0)
    a.mov(R8, R7)
    a.alu("and", R8, socket.htons(mask))
    a.add(R8, socket.htons(first))
    a.store(H, R6, _SOURCE_LOW_AT, R8)
    _checksum(a, _IP_SUM_AT, sums.ip)
    a.alu("rsh", R7, 16)
    a.alu("and", R7, 0xFFFF)
    a.store(H, R6, _SOURCE_PORT_AT, R7)
    a.add(R8, R7)
    _checksum(a, _TCP_SUM_AT, sums.tcp)
    a.mov(R1, device)
    a.mov(R2, 0)
    a.call(_REDIRECT_TO)
    a.exit(_REDIRECT)
    a.label("short")
    a.exit(DROP)
    return a.assembled()


def _checksum(a: Assembler, at: int, begun: int) -> None:
    """The complement of the sum of `begun` and R8."""
    a.mov(R1, R8)
    a.add(R1, begun)
    _fold(a, R1)
    _fold(a, R1)
    a.mov(R2, 0xFFFF)
    a.alu("sub", R2, R1)
    a.store(H, R6, at, R2)


def _fold(a: Assembler, total: Reg) -> None:
    a.mov(R2, total)
    a.alu("rsh", R2, 16)
    a.alu("and", total, 0xFFFF)
    a.add(total, R2)


class Flood:
    """Frames of that attack out of a device of this network. LoadRefused: the kernel lets nobody make them."""

    def __init__(self, attack: Attack, device: str, to: bytes, source: bytes) -> None:
        frame, sums = syn(attack, to, source)
        self._frame = ctypes.create_string_buffer(frame, len(frame))
        try:
            self._program = bpf.load_xdp(program(attack, sums, socket.if_nametoindex(device)), "bench_flood")
        except OSError as error:
            raise LoadRefused(f"bpf(2) loads no program: {error.strerror}", "CAP_BPF, CAP_NET_ADMIN") from error

    def run(self, seconds: float) -> dict[str, float]:
        """One system call, until an alarm, as its end takes 20 ms. How many frames it was, the devices know."""
        demand_short(seconds)
        place = bpf.address(self._frame)
        fields = (self._program, 0, len(self._frame), 0, place, 0, ATTEMPTS_CEILING, 0, 0, 0, 0, 0, _LIVE_FRAMES, 0)
        attributes = bpf.attributes("IIIIQQIIIIQQIII", *fields, _BATCH)
        signal.signal(signal.SIGALRM, lambda *_: None)
        begun = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            bpf.call(_TEST_RUN, attributes)
        except InterruptedError:
            return {"seconds": seconds}
        except OSError as error:
            raise LoadRefused(f"no live frames: {error.strerror}", "they take Linux 5.18") from error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return {"seconds": time.monotonic() - begun}  # so many were enough

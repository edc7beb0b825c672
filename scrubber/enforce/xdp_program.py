"""The XDP program, and the assembler that makes it: an array of instructions, written in Python.

No compiler, at build or at run time: there is nothing to install and nothing to ship for each architecture, it is
assembled in a quarter of a millisecond and verified in about ten, and each of its 220 instructions stands here to be
reviewed and is tested beside a slow reference (tests/reference/xdp.py).

What it does to a frame, in order:
- Ethernet, up to two VLAN tags, IPv4 or IPv6, TCP: anything else passes, and so does what is cut short (the stack
  refuses it). A fragment behind the first has no ports and passes: its first is dropped, so it is never put together.
- The door: destination address and port, then the port at any address. No door: it passes.
- The source's own entry, then the prefixes that hold it, narrowest first: an entry drops if its time is not up and it
  shuts that door. It counts what it drops, in place.
- More than `EXTENSIONS_MAX` IPv6 extension headers: the stack would read on, we do not. Nobody honest sends that many
  (RFC 8504 lets hosts refuse it), so such a packet counts as one to every door: no way around a block.

Measured with 100,000 hosts and 1,000 prefixes, on one core: 42 ns for what goes to no door, 56 to 78 for who is not
blocked, 77 to 94 for a host that is, 118 to 137 by a prefix. A map for each family: keys of 4 and 8 bytes are found in
25 ns, those of 20 in 29. The coarse clock instead of the fine one saves 16.

Invariant: it reads nothing but the frame and its maps, writes nothing but counts, and either drops or passes.
"""

from __future__ import annotations

import socket
import struct
import sys
from enum import IntEnum
from typing import NamedTuple

EXTENSIONS_MAX = 8
NESTED_MAX = 128  # prefixes within one another that are asked for one packet: more there cannot be

# Values of the entries' array, and where its fields are.
ENTRY = struct.Struct("=QQQQ")  # word, packets, bytes, slot of the prefix around it (0: none)
WORD_AT, PACKETS_AT, BYTES_AT, AROUND_AT = 0, 8, 16, 24
# The word: until_ns, whose lowest 8 bits are the doors instead. One store changes both, one load reads both.
DOOR_BITS = 0xFF

DOOR_KEY = struct.Struct("=16sHH")  # address, port in network byte order, 4 or 6
PREFIX4_BYTES, PREFIX6_BYTES = 8, 20  # key of a trie: prefix length, address

PASS, DROP = 2, 1


class Reg(IntEnum):
    """Registers. A call takes R1 to R5 and leaves its answer in R0; R6 to R9 outlive it."""

    R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = range(11)


R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = Reg

# Sizes of loads and stores: 1, 2, 4, 8 bytes.
B, H, W, D = 0x10, 0x08, 0x00, 0x18

_ALU = {"add": 0x07, "sub": 0x17, "and": 0x57, "lsh": 0x67, "rsh": 0x77, "mov": 0xB7}
_JUMP = {"==": 0x15, ">": 0x25, "<": 0xA5, "<=": 0xB5, "!=": 0x55}
_BY_REGISTER = 0x08
_LOAD, _STORE, _STORE_NUMBER, _ATOMIC_ADD = 0x61, 0x63, 0x62, 0xDB
_GOTO, _CALL, _EXIT, _LOAD_WIDE, _MAP_FD = 0x05, 0x85, 0x95, 0x18, 1

# Helpers of the kernel.
_LOOKUP, _COARSE_NS, _FRAME_BYTES = 1, 160, 188


class Assembler:
    """Instructions one after another; jumps name a label, which may come later."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int | str, int]] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def alu(self, operation: str, to: Reg, what: Reg | int) -> None:
        """`to` op= `what`, 64 bits."""
        self._either(_ALU[operation], to, what, 0)

    def mov(self, to: Reg, what: Reg | int) -> None:
        self.alu("mov", to, what)

    def add(self, to: Reg, what: Reg | int) -> None:
        self.alu("add", to, what)

    def jump(self, left: Reg, comparison: str, right: Reg | int, label: str) -> None:
        """Unsigned."""
        self._either(_JUMP[comparison], left, right, label)

    def goto(self, label: str) -> None:
        self._put(_GOTO, 0, 0, label)

    def load(self, size: int, to: Reg, base: Reg, at: int) -> None:
        self._put(_LOAD | size, to, base, at)

    def store(self, size: int, base: Reg, at: int, what: Reg | int) -> None:
        if isinstance(what, Reg):
            self._put(_STORE | size, base, what, at)
        else:
            self._put(_STORE_NUMBER | size, base, 0, at, what)

    def atomic_add(self, base: Reg, at: int, what: Reg) -> None:
        self._put(_ATOMIC_ADD, base, what, at)

    def address(self, to: Reg, base: Reg, at: int) -> None:
        self.mov(to, base)
        self.add(to, at)

    def call(self, helper: int) -> None:
        self._put(_CALL, imm=helper)

    def lookup(self, map_fd: int, key_at: int) -> None:
        """R0: the value for the key on the stack, or 0."""
        self._put(_LOAD_WIDE, R1, _MAP_FD, 0, map_fd)
        self._put(0)
        self.lookup_in(key_at)

    def lookup_in(self, key_at: int) -> None:
        """The same, in the map that R1 points to."""
        self.address(R2, FP, key_at)
        self.call(_LOOKUP)

    def exit(self, answer: int) -> None:
        self.mov(R0, answer)
        self._put(_EXIT)

    def assembled(self) -> bytes:
        """8 bytes an instruction, in this machine's byte order. KeyError: a label that is nowhere."""
        return b"".join(
            struct.pack("=BBhi", op, _registers(to, source), self._offset(at, place), imm)
            for place, (op, to, source, at, imm) in enumerate(self._code)
        )

    def _either(self, op: int, to: Reg, what: Reg | int, at: int | str) -> None:
        if isinstance(what, Reg):
            self._put(op | _BY_REGISTER, to, what, at)
        else:
            self._put(op, to, 0, at, what)

    def _put(self, op: int, to: int = 0, source: int = 0, at: int | str = 0, imm: int = 0) -> None:
        self._code.append((op, to, source, at, imm))

    def _offset(self, at: int | str, place: int) -> int:
        return self._labels[at] - place - 1 if isinstance(at, str) else at


def _registers(to: int, source: int) -> int:
    return source << 4 | to if sys.byteorder == "little" else to << 4 | source


class Maps(NamedTuple):
    """Descriptors of what the program reads."""

    doors: int  # array of one map: DOOR_KEY → u32, bit by index of the door
    entries: int  # slot → ENTRY
    hosts4: int  # address → slot
    hosts6: int  # first half of the address → slot
    prefixes4: int  # trie → slot
    prefixes6: int


# The stack, from the frame pointer down. Addresses are aligned; a source's key in a trie ends in its key as a host.
_DOOR_KEY = -24
_DOOR_PORT, _FAMILY = -8, -6
_SOURCE, _SOURCE_PLEN = -40, -44
_SLOT = -48
_IP_AT = -56
_ZERO = -60

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION, _TCP = 0, 43, 44, 60, 6
_V4, _V6, _TAG, _TAG_OUTER = (socket.htons(each) for each in (0x0800, 0x86DD, 0x8100, 0x88A8))


def program(maps: Maps) -> bytes:
    """R6 is the context throughout, R7 from `source` on the doors that the packet is for."""
    a = Assembler()
    _ethernet(a)
    _ipv4(a)
    _ipv6(a)
    _ports(a)
    _doors(a, maps)
    a.label("source")
    a.load(H, R1, FP, _FAMILY)
    a.jump(R1, "!=", 4, "source6")
    _source(a, maps.hosts4, maps.prefixes4, maps.entries, "4")
    a.label("source6")
    _source(a, maps.hosts6, maps.prefixes6, maps.entries, "6")
    _around(a, maps.entries)
    _answers(a)
    return a.assembled()


def _ethernet(a: Assembler) -> None:
    """R3: the frame's end. R4: behind what is read, throughout the parsing."""
    a.mov(R6, R1)
    a.load(W, R4, R6, 0)
    a.load(W, R3, R6, 4)
    a.mov(R9, 14)
    a.add(R4, 14)
    a.jump(R4, ">", R3, "pass")
    a.load(H, R5, R4, -2)
    for tag in ("outer", "inner"):
        a.jump(R5, "==", _TAG, tag)
        a.jump(R5, "!=", _TAG_OUTER, "network")
        a.label(tag)
        a.add(R4, 4)
        a.jump(R4, ">", R3, "pass")
        a.load(H, R5, R4, -2)
        a.add(R9, 4)
    a.label("network")
    a.store(D, FP, _IP_AT, R9)
    a.jump(R5, "==", _V6, "ipv6")
    a.jump(R5, "!=", _V4, "pass")


def _ipv4(a: Assembler) -> None:
    _within(a, 20)
    a.load(B, R1, R4, 0)
    a.mov(R0, R1)
    a.alu("rsh", R0, 4)
    a.jump(R0, "!=", 4, "pass")
    a.alu("and", R1, 15)
    a.alu("lsh", R1, 2)
    a.jump(R1, "<", 20, "pass")
    a.load(B, R0, R4, 9)
    a.jump(R0, "!=", _TCP, "pass")
    a.load(H, R0, R4, 6)
    a.alu("and", R0, socket.htons(0x1FFF))
    a.jump(R0, "!=", 0, "pass")  # a fragment behind the first
    a.load(W, R0, R4, 12)
    a.store(W, FP, _SOURCE, R0)
    a.store(W, FP, _SOURCE_PLEN, 32)
    a.load(W, R0, R4, 16)
    _no_door_address(a)
    a.store(W, FP, _DOOR_KEY, R0)
    a.store(H, FP, _FAMILY, 4)
    a.add(R4, R1)
    a.goto("ports")


def _ipv6(a: Assembler) -> None:
    a.label("ipv6")
    _within(a, 40)
    a.load(B, R0, R4, 0)
    a.alu("rsh", R0, 4)
    a.jump(R0, "!=", 6, "pass")
    for half in (0, 8):
        for end in (0, 4):  # in a frame they are aligned to 4 at best
            a.load(W, R0, R4, 8 + half + end)
            a.store(W, FP, _SOURCE + half + end, R0)
            a.load(W, R0, R4, 24 + half + end)
            a.store(W, FP, _DOOR_KEY + half + end, R0)
    a.store(W, FP, _SOURCE_PLEN, 128)
    a.store(H, FP, _FAMILY, 6)
    a.load(B, R5, R4, 6)
    a.add(R4, 40)
    _extensions(a)


def _extensions(a: Assembler) -> None:
    """R5: what comes next, R2: how far behind R4. A number, for the verifier takes a fixed step of it for a case of any
    step, which a pointer's it would follow apart: twice the work each round."""
    a.mov(R1, EXTENSIONS_MAX)
    a.mov(R2, 0)
    a.label("extension")
    a.jump(R5, "==", _TCP, "tcp6")
    a.jump(R5, "==", _FRAGMENT, "more")
    a.jump(R5, "==", _HOP_BY_HOP, "more")
    a.jump(R5, "==", _ROUTING, "more")
    a.jump(R5, "!=", _DESTINATION, "pass")
    a.label("more")
    a.jump(R1, "==", 0, "too many")
    a.alu("sub", R1, 1)
    a.mov(R8, R4)
    a.add(R8, R2)
    _within(a, 8, of=R8)
    a.jump(R5, "==", _FRAGMENT, "fragment")
    a.load(B, R5, R8, 0)
    a.load(B, R0, R8, 1)
    a.add(R0, 1)
    a.alu("lsh", R0, 3)
    a.add(R2, R0)
    a.goto("extension")
    a.label("fragment")
    a.load(H, R0, R8, 2)
    a.alu("and", R0, socket.htons(0xFFF8))
    a.jump(R0, "!=", 0, "pass")  # behind the first
    a.load(B, R5, R8, 0)
    a.add(R2, 8)
    a.goto("extension")
    a.label("tcp6")
    a.add(R4, R2)


def _ports(a: Assembler) -> None:
    a.label("ports")
    _within(a, 4)
    a.load(H, R0, R4, 2)
    a.store(H, FP, _DOOR_PORT, R0)


def _doors(a: Assembler, maps: Maps) -> None:
    """The map of doors stands in another, so that all of them change at once."""
    a.store(W, FP, _ZERO, 0)
    a.lookup(maps.doors, _ZERO)
    a.jump(R0, "==", 0, "pass")
    a.mov(R8, R0)
    a.mov(R1, R8)
    a.lookup_in(_DOOR_KEY)
    a.jump(R0, "!=", 0, "door")
    _no_door_address(a)
    a.store(W, FP, _DOOR_KEY, 0)
    a.mov(R1, R8)
    a.lookup_in(_DOOR_KEY)
    a.jump(R0, "==", 0, "pass")
    a.label("door")
    a.load(W, R7, R0, 0)
    a.goto("source")
    a.label("too many")
    a.mov(R7, DOOR_BITS)


def _source(a: Assembler, hosts: int, prefixes: int, entries: int, family: str) -> None:
    """Its own entry, then the narrowest prefix around it."""
    a.lookup(hosts, _SOURCE)
    a.jump(R0, "==", 0, f"prefix{family}")
    a.load(W, R1, R0, 0)
    _judge(a, entries, otherwise=f"prefix{family}")
    a.label(f"prefix{family}")
    a.lookup(prefixes, _SOURCE_PLEN)
    a.jump(R0, "==", 0, "pass")
    a.load(W, R1, R0, 0)
    a.goto("prefix")


def _around(a: Assembler, entries: int) -> None:
    """A trie answers with the narrowest prefix alone: each names the one around it."""
    a.label("prefix")
    a.mov(R8, NESTED_MAX)
    a.label("nested")
    _judge(a, entries, otherwise="wider")
    a.label("wider")
    a.load(D, R1, R9, AROUND_AT)
    a.jump(R1, "==", 0, "pass")
    a.alu("sub", R8, 1)
    a.jump(R8, "!=", 0, "nested")
    a.goto("pass")


def _judge(a: Assembler, entries: int, otherwise: str) -> None:
    """R1: the slot. R9: its entry. The coarse clock lags by one tick at most and reads no hardware."""
    a.store(W, FP, _SLOT, R1)
    a.lookup(entries, _SLOT)
    a.jump(R0, "==", 0, "pass")
    a.mov(R9, R0)
    a.call(_COARSE_NS)
    a.load(D, R1, R9, WORD_AT)
    a.jump(R1, "<=", R0, otherwise)
    a.alu("and", R1, R7)
    a.jump(R1, "!=", 0, "drop")
    a.goto(otherwise)


def _answers(a: Assembler) -> None:
    """Counted from the IP header on, as everything above this layer counts. Adding atomically: a source's packets come
    in at more than one core, but rarely at once."""
    a.label("drop")
    a.mov(R1, R6)
    a.call(_FRAME_BYTES)
    a.load(D, R1, FP, _IP_AT)
    a.alu("sub", R0, R1)
    a.atomic_add(R9, BYTES_AT, R0)
    a.mov(R1, 1)
    a.atomic_add(R9, PACKETS_AT, R1)
    a.exit(DROP)
    a.label("pass")
    a.exit(PASS)


def _within(a: Assembler, count: int, of: Reg = R4) -> None:
    """Passes a frame that ends less than `count` bytes behind there."""
    a.address(R0, of, count)
    a.jump(R0, ">", R3, "pass")


def _no_door_address(a: Assembler) -> None:
    """All but its first 4 bytes, which the caller stores."""
    a.store(W, FP, _DOOR_KEY + 4, 0)
    a.store(D, FP, _DOOR_KEY + 8, 0)

"""Frames made byte by byte, and an XDP program run on them without any wire (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import ctypes
import ipaddress
import struct

from scrubber.enforce import bpf

_TEST_RUN = 10
_RESULT_AT, _NS_AT = 4, 36

PORT = 443
MACS = bytes.fromhex("02000000000b02000000000a")
C_TAG, S_TAG = b"\x81\x00\x00\x07", b"\x88\xa8\x00\x09"
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION, TCP, UDP = 0, 43, 44, 60, 6, 17


def run(program: int, frame: bytes, repeat: int = 1) -> tuple[int, int]:
    """What the program answered, and nanoseconds a run."""
    content = ctypes.create_string_buffer(frame, len(frame))
    attr = bpf.attributes(
        "IIIIQQIIIIQQIII", program, 0, len(frame), 0, bpf.address(content), 0, repeat, 0, 0, 0, 0, 0, 0, 0, 0
    )
    bpf.call(_TEST_RUN, attr)
    (answer,), (ns,) = struct.unpack_from("=I", attr, _RESULT_AT), struct.unpack_from("=I", attr, _NS_AT)
    return answer, ns


def tcp(port: int = PORT, data: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, 2, 1024, 0, 0) + data


def ipv4(
    source: str,
    to: str,
    rest: bytes,
    *,
    options: bytes = b"",
    fragment: int = 0,
    protocol: int = TCP,
    tags: bytes = b"",
) -> bytes:
    """A frame. `fragment`: the 16 bits of flags and offset. Options are padded to words."""
    options += bytes(-len(options) % 4)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        4 << 4 | 5 + len(options) // 4,
        0,
        20 + len(options) + len(rest),
        1,
        fragment,
        64,
        protocol,
        0,
        ipaddress.IPv4Address(source).packed,
        ipaddress.IPv4Address(to).packed,
    )
    return MACS + tags + b"\x08\x00" + head + options + rest


def ipv6(source: str, to: str, rest: bytes, *, first: int = TCP, tags: bytes = b"") -> bytes:
    """A frame. `first`: what `rest` begins with."""
    ends = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(to).packed
    return MACS + tags + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(rest), first, 64) + ends + rest


def extended(kinds: list[int], rest: bytes, *, last: int = TCP, eights: int = 0, offset: int = 0) -> bytes:
    """Extension headers of these kinds before `rest`; behind the first 8 bytes each has so many times 8 more."""
    for kind in reversed(kinds):
        if kind == FRAGMENT:
            rest = struct.pack("!BBHI", last, 0xAA, offset << 3 | 1, 7) + rest
        else:
            rest = bytes([last, eights]) + bytes(6 + 8 * eights) + rest
        last = kind
    return rest

"""The fingerprint of how a client begins to speak HTTP/2, as docs/fingerprints.md defines it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import hpack

from tests.reference.siphash import siphash

PREFACE_BYTES = 24
TEXT_BYTES_MAX = 480
HEADERS, PRIORITY, SETTINGS, WINDOW_UPDATE, CONTINUATION = 1, 2, 4, 8, 9
ACK, END_HEADERS, PADDED, PRIORITIZED = 1, 4, 8, 32


def frames(sent: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload."""
    at = 0
    while len(sent) - at >= 9:
        length = int.from_bytes(sent[at : at + 3])
        yield (
            sent[at + 3],
            sent[at + 4],
            int.from_bytes(sent[at + 5 : at + 9]) & 0x7FFFFFFF,
            sent[at + 9 : at + 9 + length],
        )
        at += 9 + length


def lines(sent: bytes) -> Iterator[str]:
    """Of the canonical text, in order; the last one without LF."""
    block = b""
    for kind, flags, stream, payload in frames(sent[PREFACE_BYTES:]):
        if kind == SETTINGS and not flags & ACK:
            yield from (f"s{name}:{value}\n" for name, value in dict(struct.iter_unpack(">HI", payload)).items())
        elif kind == WINDOW_UPDATE and stream == 0:
            yield f"w{int.from_bytes(payload) & 0x7FFFFFFF}:0\n"
        elif kind == PRIORITY:
            parent = int.from_bytes(payload[:4])
            yield f"p{stream}:{payload[4]}\n"
            yield f"d{parent & 0x7FFFFFFF}:{parent >> 31}\n"
        elif kind in (HEADERS, CONTINUATION):
            padding = payload[0] + 1 if kind == HEADERS and flags & PADDED else 0
            begin = (padding > 0) + (5 if kind == HEADERS and flags & PRIORITIZED else 0)
            block += payload[begin : len(payload) - max(padding - 1, 0)]
            if flags & END_HEADERS:
                names = [bytes(name) for name, _ in hpack.Decoder().decode(block, raw=True)]
                yield "".join(letter(name) for name in names if name.startswith(b":"))
                return


def letter(name: bytes) -> str:
    return "c" if name == b":protocol" else name[1:2].decode()


def fingerprint(sent: bytes) -> int:
    """Of all that a client sent, its preface first."""
    text = ""
    for line in lines(sent):
        if len(text) + len(line) <= TEXT_BYTES_MAX:
            text += line
    return siphash(0, 0, text.encode("ascii"), compress=1, finish=3) or 1

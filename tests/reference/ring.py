"""What a consumer makes of a ring's memory, slow and obvious."""

from __future__ import annotations

import struct

RECORD_BYTES_MAX = 16384
KINDS = (1, 2)


def read_all(data: bytes, head: int, tail: int) -> list[tuple[int, bytes] | bool]:
    """The records between tail and head, in order; False at the end: the rest made no sense and was skipped."""
    head &= ~7
    found: list[tuple[int, bytes] | bool] = []
    while head != tail:
        there = (head - tail) % 2**64
        record = record_at(data, tail) if there <= len(data) and tail % 8 == 0 else None
        if record is None or taken_bytes(record[1]) > there:
            return [*found, False]
        found.append(record)
        tail = (tail + taken_bytes(record[1])) % 2**64
    return found


def record_at(data: bytes, at: int) -> tuple[int, bytes] | None:
    length, kind = struct.unpack("<II", around(data, at, 8))
    return (kind, around(data, at + 8, length)) if length <= RECORD_BYTES_MAX and kind in KINDS else None


def taken_bytes(payload: bytes) -> int:
    return 8 + (len(payload) + 7) // 8 * 8


def around(data: bytes, at: int, count: int) -> bytes:
    """That many bytes from a place on, the first ones following the last ones."""
    at %= len(data)
    return (data[at:] + data)[:count] if at + count > len(data) else data[at : at + count]

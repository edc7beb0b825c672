"""Prefix sets compiled into the sealed images that the core searches (ext/prefixes.pxd).

Owns the flattening: nested prefixes become disjoint ranges in which the longest prefix has won, so that a look-up is
one binary search. Invariants: each table that is not empty begins at address 0, starts strictly rise, neighbours differ
in value; value 0 means "not in the set". IPv4-mapped IPv6 prefixes are IPv4; a wider IPv6 prefix never reaches IPv4.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping

from scrubber.config.network import Network, network
from scrubber.mandate.layout import LAYOUT_VERSION

MAGIC = b"SCRUBPFX"
HEADER = struct.Struct("<8sIIQII32s64x")
RANGE_V4 = struct.Struct("<II")
RANGE_V6 = struct.Struct("<QQQ")
VALUE_MAX = 0xFFFF_FFFF


def flatten(networks: Iterable[tuple[int, int, int]], bits: int) -> list[tuple[int, int]]:
    """Disjoint (start, value) ranges of (first, prefix length, value) entries, the longest prefix winning."""
    points: list[tuple[int, int]] = []
    open_ranges: list[tuple[int, int]] = []  # (end, value) of the prefixes around this position, the innermost last

    def close_until(position: int) -> None:
        while open_ranges and open_ranges[-1][0] <= position:
            end, _ = open_ranges.pop()
            points.append((end, open_ranges[-1][1] if open_ranges else 0))

    for first, plen, value in sorted(networks):
        close_until(first)
        points.append((first, value))
        open_ranges.append((first + (1 << (bits - plen)), value))
    close_until(1 << bits)
    if not points:
        return []
    starts = {0: 0}
    starts.update(points)  # of several points at one start the last one is the innermost
    ranges: list[tuple[int, int]] = []
    for start, value in sorted(starts.items()):
        if start < 1 << bits and (not ranges or ranges[-1][1] != value):
            ranges.append((start, value))
    return ranges


def compile_prefixes(
    prefixes: Mapping[str, int] | Mapping[Network, int] | Mapping[str | Network, int], prefix_id: int
) -> bytes:
    """The sealed image of a prefix set: prefix → value (1..2^32-1); where prefixes overlap the longest gives the value.

    Raises ValueError, naming the entry: prefix malformed, value out of range, one prefix with two values.
    """
    values: dict[Network, int] = {}
    for key, value in prefixes.items():
        parsed = network(str(key))
        if not 1 <= value <= VALUE_MAX:
            raise ValueError(f"value {value} of {parsed} is out of range; it must be 1 to {VALUE_MAX}")
        if values.setdefault(parsed, value) != value:
            raise ValueError(f"{parsed} has two values, {values[parsed]} and {value}; keep one of them")
    entries: dict[int, list[tuple[int, int, int]]] = {4: [], 6: []}
    for each, value in values.items():
        entries[each.version].append((int(each.network_address), each.prefixlen, value))
    v4 = flatten(entries[4], 32)
    v6 = flatten(entries[6], 128)
    body = b"".join(RANGE_V4.pack(start, value) for start, value in v4)
    body += b"".join(RANGE_V6.pack(start >> 64, start & 0xFFFF_FFFF_FFFF_FFFF, value) for start, value in v6)
    digest = hashlib.sha256(body).digest()
    return HEADER.pack(MAGIC, LAYOUT_VERSION, prefix_id, HEADER.size + len(body), len(v4), len(v6), digest) + body

"""The path as rules match it, slow and obvious."""

from __future__ import annotations

import re


def decode(match: re.Match[bytes]) -> bytes:
    value = int(match[1], 16)
    if 0x20 < value < 0x7F and value != ord("%"):
        return bytes([value])
    return match[0].upper()


def normalise(path: bytes, cap: int) -> bytes:
    """Escapes of printable ASCII decoded once; parameters, dot segments and empty ones removed; the first cap bytes."""
    if not path.startswith(b"/"):
        return path[:cap]
    kept: list[bytes] = []
    closing = False
    for segment in re.sub(rb"%([0-9A-Fa-f]{2})", decode, path).split(b"/")[1:]:
        name = segment.split(b";")[0]
        closing = name in {b"", b".", b".."}
        if name == b"..":
            del kept[-1:]
        elif not closing:
            kept.append(name)
    text = b"".join(b"/" + segment for segment in kept)
    return (text + b"/" if closing else text)[:cap]

"""Routes, slow and obvious: which one a request takes, and what its path becomes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scrubber.config.routes import Route
from tests.reference.path import normalise

PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,=:@/")


def matches(route: Route, method: str, host: str, path: bytes) -> re.Match[bytes] | bool:
    """`path` is normalised. The match where it is a pattern's, for its groups."""
    if route.methods and method not in route.methods:
        return False
    name = host.lower().removesuffix(".")
    if route.host.startswith("*.") and not name.endswith(route.host[1:]):
        return False
    if route.host.startswith("*.") and name == route.host[1:]:
        return False
    if route.host and not route.host.startswith("*.") and name != route.host:
        return False
    if route.path:
        return path == route.path.encode()
    if route.path_prefix:
        return path.startswith(route.path_prefix.encode())
    return re.search(route.path_re.encode(), path) or False


def find(routes: Sequence[Route], method: str, host: str, sent: bytes) -> int | None:
    """The first that matches."""
    path = normalise(sent, 2048)
    return next((i for i, route in enumerate(routes) if matches(route, method, host, path)), None)


def spelled(path: bytes) -> bytes:
    """A normalised path as a URL has it."""
    out = b""
    at = 0
    while at < len(path):
        escape = re.match(rb"%([0-9A-F]{2})", path[at:])
        if escape and not (0x20 < int(escape[1], 16) < 0x7F and escape[1] != b"25"):
            out += escape[0]
            at += 3
            continue
        byte = path[at : at + 1]
        out += byte if byte[0] in PLAIN else b"%%%02X" % byte[0]
        at += 1
    return out


def rewritten(route: Route, sent: bytes) -> bytes | int:
    """The path that the origin gets; a status where it is refused."""
    path = normalise(sent, 2048)
    assert route.rewrite is not None
    if route.rewrite.to:
        found = re.search(route.path_re.encode(), path) if route.path_re else None
        pieces = re.split(rb"(\{path\}|\{rest\}|\$[1-9])", route.rewrite.to.encode())
    else:
        found, pieces = None, [route.rewrite.add_prefix.encode(), b"{stripped}"]
    whole = b""
    for piece in pieces:
        text = piece
        if piece == b"{path}":
            text = path
        elif piece == b"{rest}":
            text = path[len(route.path_prefix) :]
        elif piece == b"{stripped}":
            text = stripped(path, route.rewrite.strip_prefix.encode())
        elif re.fullmatch(rb"\$[1-9]", piece) and found is not None:
            text = found[int(piece[1:])] or b""
        whole += text[1:] if whole.endswith(b"/") and text.startswith(b"/") else text
    if any(segment in (b".", b"..") for segment in whole.split(b"/")):
        return 400
    return spelled(whole if whole.startswith(b"/") else b"/" + whole)


def stripped(path: bytes, prefix: bytes) -> bytes:
    rest = path[len(prefix) :]
    if path.startswith(prefix) and (not rest or rest.startswith(b"/") or prefix.endswith(b"/")):
        return rest
    return path

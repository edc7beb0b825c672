"""A request's field section as HTTP/1.1 has it, by RFC 9113 8 and RFC 8441, slow and plain; and an answer's fields."""

from __future__ import annotations

import re
from dataclasses import dataclass

Fields = list[tuple[bytes, bytes]]

BUFFER_BYTES = 24576
FIELDS_MAX = 132
LIST_BYTES_MAX = 131072
PSEUDO = (b":method", b":scheme", b":authority", b":path", b":protocol")
HOP = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
WORD = re.compile(rb"[^\x00-\x20\x7f]+")
VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*")


class Refused(Exception):
    """By this name."""


@dataclass
class Request:
    """As HTTP/1.1: `opened`, where a WebSocket is asked for with a key of our own."""

    method: bytes
    target: bytes
    fields: Fields
    chunked: bool = False
    opened: bool = False


def stored(fields: Fields) -> bool:
    """What a connection keeps of a field section: one buffer, with four bytes before each field; crumbs of a cookie are
    one field again, and bounded by their bytes alone."""
    if sum(name != b"cookie" for name, _ in fields) > FIELDS_MAX:
        return False
    return sum(len(name) + len(value) + 4 for name, value in fields) <= BUFFER_BYTES


def pseudo(fields: Fields) -> dict[bytes, bytes]:
    """The pseudo-headers; the others are looked at on the way (8.2, 8.3)."""
    found: dict[bytes, bytes] = {}
    regular, host = False, False
    for name, value in fields:
        if name.startswith(b":"):
            if regular or name not in PSEUDO:
                raise Refused("bad_header_name")
            if name in found or not WORD.fullmatch(value):
                raise Refused("bad_header_value")
            found[name] = value
            continue
        regular = True
        if not TOKEN.fullmatch(name) or name in HOP or (name == b"te" and value.lower() != b"trailers"):
            raise Refused("bad_header_name")
        if not VALUE.fullmatch(value):
            raise Refused("bad_header_value")
        if name == b"host" and host:
            raise Refused("duplicate_host")
        host = host or name == b"host"
    return found


def request(fields: Fields, last: bool) -> Request:
    """Refused: what is wrong with it."""
    counted = 0
    for name, value in fields:
        counted += len(name) + len(value) + 32
        if counted > LIST_BYTES_MAX:
            raise Refused("http2_header_bomb")
    if not stored(fields):
        raise Refused("head_too_large")
    found = pseudo(fields)
    regular = [one for one in fields if not one[0].startswith(b":")]
    names = [name for name, _ in regular]
    if b":method" not in found:
        raise Refused("bad_method")
    connect = found[b":method"] == b"CONNECT"
    if connect != (b":protocol" in found) or (connect and found[b":protocol"].lower() != b"websocket"):
        raise Refused("method_refused")
    if not SCHEME.fullmatch(found.get(b":scheme", b"")):
        raise Refused("bad_target")
    path = found.get(b":path", b"")
    if not path.startswith(b"/") and path != b"*":
        raise Refused("bad_target")
    host = dict(regular).get(b"host")
    authority = found.get(b":authority")
    if authority is not None and host is not None and authority.lower() != host.lower():
        raise Refused("host_mismatch")
    chunked = not (last or connect or b"content-length" in names)
    made = Request(b"GET" if connect else found[b":method"], path, [], chunked, connect)
    if authority is not None or host is not None:
        made.fields.append((b"host", authority if authority is not None else host or b""))
    cookies = b"; ".join(value for name, value in regular if name == b"cookie")
    for at, (name, value) in enumerate(regular):
        if name == b"host" or (connect and name in (b"sec-websocket-key", b"content-length")):
            continue
        if name == b"cookie":
            if names.index(name) == at:
                made.fields.append((name, cookies))
            continue
        made.fields.append((name, value))
    if connect:
        made.fields += [(b"connection", b"upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-key", b"")]
    elif chunked:
        made.fields.append((b"transfer-encoding", b"chunked"))
    room = len(made.method) + len(made.target) + 14 + 24 * connect
    if room + sum(len(name) + len(value) + 4 for name, value in made.fields) > BUFFER_BYTES:
        raise Refused("head_too_large")
    return made


def response(fields: Fields) -> Fields:
    """Fields of an answer, without those that end with HTTP/1.1."""
    lower = [(name.lower(), value) for name, value in fields]
    return [one for one in lower if one[0] not in HOP | {b"sec-websocket-accept"}]

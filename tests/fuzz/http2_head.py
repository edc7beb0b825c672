"""Heads of HTTP/2 as HTTP/1.1 and back: as the slow reference has them, and read by us and by others as one whole head.

The first byte says whether the request ends with its head; then come fields: length of name and value, a byte each
(one above 250 counts a hundredfold), name, value.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from scrubber import _native
from tests.reference import http2_head, others
from tests.reference.http2_head import Fields, Refused, Request

LIMITS = (24576, 24576, 128)


@functools.cache
def probe() -> _native.ProbeHttp2:
    return _native.ProbeHttp2()


def fields_of(data: bytes) -> Fields:
    found = []
    at = 0
    while at + 2 <= len(data):
        name, value = data[at], data[at + 1]
        at += 2
        times = 100 if value > 250 else 1
        found.append((data[at : at + name], data[at + name : at + name + value] * times))
        at += name + value
    return found


def packed(fields: Fields) -> bytes:
    return b"".join(bytes((len(name), len(value))) + name + value for name, value in fields)


def run(data: bytes) -> None:
    fields = fields_of(data[1:])
    request(fields, bool(data[:1] > b"\x7f"))
    response(fields)


def request(fields: Fields, last: bool) -> None:
    outcome, head, chunked = probe().request(fields, last)
    try:
        expected = http2_head.request(fields, last)
    except Refused as refused:
        assert outcome == str(refused), (outcome, refused, fields)
        return
    assert outcome == "ok", (outcome, fields)
    assert chunked == expected.chunked
    assert head.endswith(b"\r\n\r\n")
    name, found = _native.probe_request(head, LIMITS)
    assert name != "more", head
    if name == "ok":
        same(head, found, expected)


def same(head: bytes, found: dict[str, object], expected: Request) -> None:
    """One head and nothing behind it, with these fields; others read it alike."""
    assert found["head_bytes"] == len(head)
    assert (found["method_text"], found["target"]) == (expected.method, expected.target)
    fields = [(name, value) for name, value, _, _ in found["headers"]]  # type: ignore[attr-defined]
    if expected.opened:
        name, value = fields.pop()
        assert (name, len(value)) == (b"sec-websocket-key", 24)
        assert value.endswith(b"==")
        expected.fields.pop()
    assert fields == [(name, value.strip(b" \t")) for name, value in expected.fields]
    others.request_taken(head)


def response(fields: Fields) -> None:
    lines = b"".join(b"%b: %b\r\n" % one for one in fields)
    name, found = _native.probe_response(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n", 1, LIMITS)
    if name != "ok":
        return
    read = [(name, value) for name, value, _, _ in found["headers"]]
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % one for one in read) + b"\r\n"
    assert probe().response(head) == http2_head.response(read), head


def seeds() -> Iterator[bytes]:
    begin = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/a?b")]
    post = [(b":method", b"POST"), *begin[1:]]
    connect = [(b":method", b"CONNECT"), *begin[1:], (b":protocol", b"websocket")]
    yield b"\xff" + packed(begin)
    yield b"\x00" + packed(post)
    yield b"\x00" + packed([*post, (b"content-length", b"12")])
    yield b"\x00" + packed(
        [*connect, (b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"x"), (b"cookie", b"a=b")]
    )
    yield b"\xff" + packed(
        [
            *begin,
            (b"cookie", b"a=b"),
            (b"x-a", b"1"),
            (b"cookie", b"c=d"),
            (b"te", b"trailers"),
            (b"host", b"A.example"),
        ]
    )
    yield b"\xff" + packed([*begin[:2], begin[3], (b"host", b"a.example")])
    yield b"\xff" + packed([(b":method", b"OPTIONS"), (b":scheme", b"http"), (b":path", b"*")])
    yield b"\xff" + packed(
        [*begin, (b"connection", b"close"), (b"transfer-encoding", b"chunked"), (b"upgrade", b"h2c")]
    )
    yield b"\xff" + packed([*begin, (b"x-a", b"a\r\nx-b: c"), (b"x c", b"d"), (b"X-D", b"e"), (b"", b"f")])
    yield b"\xff" + packed([*begin[:3], (b":path", b"/ HTTP/1.1\r\nx: y")])
    yield b"\xff" + packed([*begin, (b"x-a", b"b"), (b":path", b"/late")])
    yield b"\xff" + packed([*begin, *((b"x-%d" % n, b"v") for n in range(130))])
    yield b"\xff" + packed([*begin, (b"x-long", bytes([97]) * 251)])
    yield b"\xff" + packed(
        [
            (b"Date", b"x"),
            (b"Connection", b"close"),
            (b"Sec-WebSocket-Accept", b"y"),
            (b"X-A", b""),
            (b"Set-Cookie", b"a=b"),
        ]
    )


def words() -> Iterator[bytes]:
    for name in (*http2_head.PSEUDO, *sorted(http2_head.HOP), b"te", b"host", b"cookie", b"content-length"):
        yield bytes((len(name), 1)) + name + b"1"
        yield name
    yield from (b"CONNECT", b"websocket", b"trailers", b"\r\n", b": ", b"*", b" HTTP/1.1", b"\x00", b"\x7f", b"\xff")

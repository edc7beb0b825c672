"""Messages that tests alter: sound seeds, and Hypothesis strategies that damage them where parsers disagree."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from hypothesis import strategies as st

REQUEST_SEEDS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /index.html?q=a%20b&c HTTP/1.1\r\nHost: www.example.org:8080\r\nUser-Agent: Mozilla/5.0 (X11)\r\n"
    b"Accept: */*\r\n"
    b"Accept-Encoding: gzip, br\r\nCookie: a=b; c=d\r\nConnection: keep-alive\r\n\r\n",
    b"POST /login HTTP/1.1\r\nHost: example.org\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n",
    b"PUT /up HTTP/1.1\r\nhost:[2001:db8::1]:8443\r\ntransfer-encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
    b"GET http://example.org/x HTTP/1.1\r\nHost: example.org\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: example.org\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\n",
    b"GET /old HTTP/1.0\r\nUser-Agent: ab\r\n\r\n",
    b"\r\nDELETE /d HTTP/1.1\r\nHost: example.org\r\nX-Empty:\r\nX-Tab:\ta\tb\t\r\nX-High: \xc3\xa4\xff\r\n\r\n",
    b"PURGE /p HTTP/1.1\r\nHost: example.org\r\nX-Forwarded-For: 192.0.2.1, 198.51.100.7\r\n"
    b"Forwarded: for=192.0.2.1\r\n\r\n",
    b"GET /chat HTTP/1.1\r\nHost: example.org\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n",
]

RESPONSE_SEEDS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\n",
    b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\nServer: x\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 100\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 404 Not Found\r\n\r\n",
    b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nSet-Cookie: a=b; Path=/\r\nSet-Cookie: c=d\r\n\r\n",
    b"HTTP/1.1 301 Moved \xfcber\r\nLocation: http://example.org/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n",
]

CHUNKED_SEEDS = [
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n",
    b"A;name\r\n0123456789\r\n0;a=b\r\n\r\n",
    b'1;a="q;\\"\r\t";b=c\r\nx\r\n0\r\n\r\n'.replace(b"\r\t", b"\t"),
    b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nVary: *\r\n\r\n",
    b"0000000000000003\r\n\r\n0\r\n0\r\n\r\n",
]

SPICE = [
    b"\r\n", b"\n", b"\r", b"\r\r\n", b" ", b"\t", b"\0", b"\x0b", b"\x0c", b"\x1f", b"\x7f", b"\x80", b"\xff", b":",
    b",", b";", b"=", b'"',
    b"\\", b"#", b"?", b"/", b"*", b"@", b"[", b"]", b"%", b"-", b"+", b"_", b"0", b"9", b"a", b"F", b"0x", b"\r\n ",
    b"\r\n\t", b"HTTP/1.1",
    b"HTTP/1.0", b"chunked", b"Host: b\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed with a few pieces put in, taken out, overwritten or repeated."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("insert", "delete", "overwrite", "repeat")))
        if kind == "insert":
            data[at:at] = draw(st.one_of(st.sampled_from(SPICE), st.binary(min_size=1, max_size=3)))
        elif kind == "delete":
            del data[at : at + draw(st.integers(1, 8))]
        elif kind == "overwrite":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
    return bytes(data)


def altered(seeds: Sequence[bytes], count: int) -> Iterator[bytes]:
    """`count` seeds with one to three places altered, the same ones each time."""
    random_ = random.Random(9112)
    for _ in range(count):
        data = bytearray(random_.choice(seeds))
        for _ in range(random_.choice((1, 1, 1, 2, 3))):
            at = random_.randrange(len(data) + 1)
            kind = random_.randrange(4)
            if kind == 0:
                data[at:at] = random_.choice(SPICE)
            elif kind == 1:
                del data[at : at + random_.choice((1, 1, 2, 8))]
            elif kind == 2 and at < len(data):
                data[at] = random_.randrange(256)
            else:
                data[at:at] = data[at : at + random_.randrange(30)]
        yield bytes(data)

"""The list of what the gateway owns (same.py) is the whole of it: exchanges in which each of them differs."""

from __future__ import annotations

from tests.e2e.proxy import Proxy
from tests.e2e.recorder import raw
from tests.e2e.wire import Wire
from tests.interop.same import REQUEST_ADDED, REQUEST_CLAIMS, REQUEST_HOP, RESPONSE_ADDED, RESPONSE_HOP, differing

HOP_BY_HOP = "Connection: keep-alive, X-Named\r\nKeep-Alive: timeout=5\r\n"
ORDINARY = (
    "Server: an origin\r\nX-Powered-By: x\r\nStrict-Transport-Security: max-age=1\r\nAlt-Svc: clear\r\nAge: 3\r\n"
    "Via: 1.1 before\r\nContent-Language: de\r\nWarning: 1\r\n"
    "Content-Security-Policy: default-src 'none'\r\nVary: *\r\nPragma: no-cache\r\nX-Named: 1\r\n"
)


def test_nothing_else_differs_in_an_answer() -> None:
    chunked = "Proxy-Authenticate: Basic\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n"
    head = f"HTTP/1.1 200 Very well\r\n{HOP_BY_HOP}{ORDINARY}{chunked}\r\n".encode()
    with Proxy(workers=2) as front:
        front.origin.answers["/"] = raw(head + b"2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n")
        answers = []
        for port in front.origin.port, front.port:
            with Wire(port) as wire:
                # HTTP/1.0: the framing cannot stay what it was.
                wire.send(b"GET / HTTP/1.0\r\nHost: site.test\r\nConnection: keep-alive\r\n\r\n")
                answers.append(wire.answer())
    straight, through = answers
    assert (through.status, through.reason, through.body) == (200, "Very well", b"ok")
    found = differing(straight.headers, through.headers, (front.origin.port, front.port))
    # A field that Connection names is hop by hop as well (RFC 9110 7.6.1).
    assert found == RESPONSE_ADDED | RESPONSE_HOP | {"x-named"}, (straight.headers, through.headers)


def test_nothing_else_differs_in_a_request() -> None:
    hop = "Proxy-Connection: keep-alive\r\nTE: trailers\r\nTrailer: X-Sum\r\nProxy-Authorization: Basic YTpi\r\n"
    own = "Host: site.test\r\nUpgrade: example\r\nPriority: u=1\r\nX-Real-IP: 192.0.2.1\r\nX-Forwarded-Port: 1\r\n"
    request = f"GET / HTTP/1.1\r\n{own}{HOP_BY_HOP}{hop}{ORDINARY}\r\n"
    with Proxy(workers=2) as front:
        for port in front.origin.port, front.port:
            with Wire(port) as wire:
                wire.send(request.encode())
                assert wire.answer().status == 200
        straight, through = front.origin.of("/")
    found = differing(straight.headers, through.headers, (0, 0))
    assert found == REQUEST_ADDED | REQUEST_HOP | REQUEST_CLAIMS | {"x-named"}, (straight.headers, through.headers)
    assert straight.line == through.line

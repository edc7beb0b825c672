"""What h11 and httptools (llhttp) say of the same bytes: nothing that one of them refuses is ever taken, and what is
taken has the same parts. Each raises AssertionError where that does not hold, and answers whether it was taken."""

from __future__ import annotations

from typing import Any

import h11
import httptools

from scrubber import _native

LLHTTP_METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"}
BODY_LENGTH, BODY_CHUNKED = 1, 2
CHUNKED_REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


class Reader:
    """What httptools calls back."""

    def __init__(self) -> None:
        self.headers_done = False
        self.body = b""
        self.messages = 0

    def on_headers_complete(self) -> None:
        self.headers_done = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1


def without_first_line(data: bytes) -> bytes:
    """RFC 9112 2.2: an empty line before the request line SHOULD be overlooked. We do; h11 does not."""
    return data.removeprefix(b"\r\n")


def request_taken(data: bytes) -> bool:
    """A request head."""
    name, head = _native.probe_request(data)
    if name != "ok":
        return False
    _request_by_h11(data, head)
    if head["method_text"] in LLHTTP_METHODS:
        parser = _by_llhttp(httptools.HttpRequestParser, data[: head["head_bytes"]])
        assert parser.get_method() == head["method_text"]
        assert parser.get_http_version() == f"1.{head['minor']}"
    return True


def _request_by_h11(data: bytes, head: dict[str, Any]) -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(without_first_line(data[: head["head_bytes"]]))
    try:
        request = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise AssertionError(f"h11 refuses what was taken: {error}: {data!r}") from error
    assert isinstance(request, h11.Request), data
    assert request.method == head["method_text"]
    assert request.target.endswith(head["target"]) or head["target"] == b"/"
    assert request.http_version == b"1.%d" % head["minor"]
    ours = [(field.lower(), value) for field, value, _, _ in head["headers"]]
    theirs = list(request.headers)
    if head["body"] == BODY_LENGTH:  # h11 writes the length anew
        ours, theirs = ([(f, v) for f, v in fields if f != b"content-length"] for fields in (ours, theirs))
    if head["body"] == BODY_CHUNKED:
        ours = [(f, v.lower() if f == b"transfer-encoding" else v) for f, v in ours]
    assert theirs == ours


def _by_llhttp(make: Any, data: bytes) -> Any:
    reader = Reader()
    parser = make(reader)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise AssertionError(f"llhttp refuses what was taken: {error}: {data!r}") from error
    assert reader.headers_done, data
    return parser


def response_taken(data: bytes) -> bool:
    """A response head."""
    name, head = _native.probe_response(data)
    if name != "ok":
        return False
    connection = h11.Connection(h11.CLIENT)
    asked = [("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "x")]
    connection.send(h11.Request(method="GET", target="/", headers=asked))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data[: head["head_bytes"]])
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise AssertionError(f"h11 refuses what was taken: {error}: {data!r}") from error
    assert isinstance(event, h11.Response | h11.InformationalResponse), data
    assert event.status_code == head["status"]
    assert bytes(event.reason) == head["reason"]
    ours = [(field.lower(), value) for field, value, _, _ in head["headers"]]
    skip = {b"content-length", b"transfer-encoding"}  # h11 writes them anew
    assert [f for f in event.headers if f[0] not in skip] == [f for f in ours if f[0] not in skip]
    assert _by_llhttp(httptools.HttpResponseParser, data[: head["head_bytes"]]).get_status_code() == head["status"]
    return True


def chunked_taken(data: bytes) -> bool:
    """A chunked body: what was read to its end, others read to the same end and the same body."""
    outcome, body, consumed = _native.probe_chunked([data])
    if outcome != "end":
        return False
    assert _chunked_by_h11(data) == (body, consumed), data
    assert _chunked_by_llhttp(data[:consumed]) == body, data
    return True


def _chunked_by_h11(data: bytes) -> tuple[bytes, int] | None:
    """(body, bytes consumed) of a whole chunked body; None: refused or incomplete."""
    connection = h11.Connection(h11.SERVER)
    body = b""
    try:
        connection.receive_data(CHUNKED_REQUEST + data)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return body, len(data) - len(connection.trailing_data[0])
            elif not isinstance(event, h11.Request):
                return None
    except h11.RemoteProtocolError:
        return None


def _chunked_by_llhttp(data: bytes) -> bytes | None:
    reader = Reader()
    parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(CHUNKED_REQUEST + data)
    except httptools.HttpParserError:
        return None
    return reader.body if reader.messages == 1 else None

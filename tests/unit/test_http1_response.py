"""Response heads: origins are read as strictly as clients; differential runs against h11 and httptools."""

from __future__ import annotations

import random
from typing import Any

import h11
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrubber import _native
from tests.reference import refused
from tests.reference.hostile import RESPONSE_SEEDS, SPICE, mutated

BODY_NONE, BODY_LENGTH, BODY_CHUNKED, BODY_CLOSE = 0, 1, 2, 3
GET, HEAD = 1, 2


def outcome(data: bytes, method: int = GET, **more: Any) -> str:
    return str(_native.probe_response(data, method, **more)[0])


def taken(data: bytes, method: int = GET) -> dict[str, Any]:
    name, fields = _native.probe_response(data, method)
    assert name == "ok", name
    return dict(fields)


def response(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return start + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def test_fields_of_a_response() -> None:
    data = response(b"Content-Length: 5", b"X-A:  b ", start=b"HTTP/1.1 404 Not Found")
    head = taken(data + b"hello")
    assert (head["status"], head["minor"], head["reason"]) == (404, 1, b"Not Found")
    assert (head["body"], head["content_length"], head["has_content_length"]) == (BODY_LENGTH, 5, True)
    assert (head["head_bytes"], head["keep_alive"], head["upgrade"]) == (len(data), True, False)
    assert [(name, value) for name, value, _, _ in head["headers"]] == [(b"Content-Length", b"5"), (b"X-A", b"b")]


@pytest.mark.parametrize(
    ("status", "method", "lines", "body"),
    [
        (200, GET, [], BODY_CLOSE),
        (200, GET, [b"Content-Length: 0"], BODY_LENGTH),
        (200, GET, [b"Transfer-Encoding: chunked"], BODY_CHUNKED),
        (200, HEAD, [], BODY_NONE),
        (200, HEAD, [b"Content-Length: 5"], BODY_NONE),
        (200, HEAD, [b"Transfer-Encoding: chunked"], BODY_NONE),
        (304, GET, [b"Content-Length: 5"], BODY_NONE),
        (304, GET, [b"Transfer-Encoding: chunked"], BODY_NONE),
        (204, GET, [], BODY_NONE),
        (204, GET, [b"Content-Length: 0"], BODY_NONE),
        (100, GET, [], BODY_NONE),
        (103, GET, [b"Link: x"], BODY_NONE),
        (500, GET, [], BODY_CLOSE),
    ],
)
def test_bodies(status: int, method: int, lines: list[bytes], body: int) -> None:
    head = taken(response(*lines, start=b"HTTP/1.1 %d X" % status), method)
    assert head["body"] == body
    assert head["has_content_length"] == any(line.startswith(b"Content-Length") for line in lines)
    assert head["keep_alive"] == (body != BODY_CLOSE)


@pytest.mark.parametrize(
    ("version", "lines", "keep_alive"),
    [
        (b"1.1", [b"Content-Length: 1"], True),
        (b"1.1", [b"Content-Length: 1", b"Connection: close"], False),
        (b"1.0", [b"Content-Length: 1"], False),
        (b"1.0", [b"Content-Length: 1", b"Connection: Keep-Alive"], True),
        (b"1.0", [b"Content-Length: 1", b"Connection: keep-alive, close"], False),
        (b"1.0", [b"Connection: keep-alive"], False),
    ],
)
def test_keep_alive(version: bytes, lines: list[bytes], keep_alive: bool) -> None:
    assert taken(response(*lines, start=b"HTTP/" + version + b" 200 OK"))["keep_alive"] is keep_alive


def test_switching_protocols() -> None:
    head = taken(response(b"Connection: upgrade", b"Upgrade: websocket", start=b"HTTP/1.1 101 Switching Protocols"))
    assert (head["upgrade"], head["body"], head["keep_alive"]) == (True, BODY_NONE, False)
    start = b"HTTP/1.1 101 Switching Protocols"
    http10 = b"HTTP/1.0 101 Switching Protocols"
    assert outcome(response(start=start)) == "bad_upgrade"
    assert outcome(response(b"Upgrade: websocket", start=start)) == "bad_upgrade"
    assert outcome(response(b"Connection: upgrade", b"Upgrade: web socket", start=start)) == "bad_upgrade"
    assert outcome(response(b"Connection: upgrade", b"Upgrade: w", start=http10)) == "bad_upgrade"


START_LINES = [b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.0 200 O\tK", b"HTTP/1.1 599 \xfcber", b"HTTP/1.1 200  x"]


@pytest.mark.parametrize("start", START_LINES)
def test_start_lines(start: bytes) -> None:
    assert outcome(response(start=start)) == "ok"


@pytest.mark.parametrize(("start", "reason"), refused.STATUS_LINES.values(), ids=refused.STATUS_LINES)
def test_refused_start_lines(start: bytes, reason: str) -> None:
    assert outcome(response(start=start)) == reason


@pytest.mark.parametrize(("lines", "reason"), refused.RESPONSE_FIELDS.values(), ids=refused.RESPONSE_FIELDS)
@pytest.mark.parametrize("method", [GET, HEAD])
def test_refused_headers(lines: list[bytes], reason: str, method: int) -> None:
    assert outcome(response(*lines), method) == reason


@pytest.mark.parametrize("status", [100, 103, 204])
def test_no_body_is_announced_where_there_is_none(status: int) -> None:
    start = b"HTTP/1.1 %d X" % status
    assert outcome(response(b"Content-Length: 5", start=start)) == "bad_content_length"
    assert outcome(response(b"Transfer-Encoding: chunked", start=start)) == "bad_transfer_encoding"


def test_http10_knows_no_transfer_coding() -> None:
    assert outcome(response(b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK")) == "bad_transfer_encoding"


def test_limits() -> None:
    data = response(*[b"X-%d: v" % i for i in range(9)])
    assert outcome(data, limits=(8192, 16384, 8)) == "too_many_headers"
    assert outcome(data, limits=(8192, len(data), 9)) == "ok"
    assert outcome(data, limits=(8192, len(data) - 1, 9)) == "head_too_large"
    assert outcome(response(start=b"HTTP/1.1 200 " + b"a" * 200), limits=(100, 16384, 8)) == "line_too_long"
    assert outcome(b"HTTP/1.1 200 " + b"a" * 20000, limits=(2**32 - 1, 2**32 - 1, 8)) == "line_too_long"


SEEDS = st.sampled_from(RESPONSE_SEEDS)


@given(SEEDS, st.lists(st.integers(0, 300), max_size=12), st.binary(max_size=40))
def test_pieces_are_read_as_the_whole(data: bytes, cuts: list[int], after: bytes) -> None:
    cut = sorted(c for c in cuts if c < len(data + after))
    assert _native.probe_response(data + after, cuts=cut) == _native.probe_response(data)


@given(SEEDS, st.integers(0, 300))
def test_a_part_of_a_sound_head_is_never_taken_nor_refused(data: bytes, cut: int) -> None:
    assert outcome(data[: min(cut, len(data) - 1)]) == "more"


def agrees_with_h11(data: bytes) -> bool:
    """Nothing that h11 refuses is taken; what is taken has the same parts."""
    name, head = _native.probe_response(data)
    if name != "ok":
        return False
    connection = h11.Connection(h11.CLIENT)
    asked = [("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "x")]
    connection.send(h11.Request(method="GET", target="/", headers=asked))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data[: head["head_bytes"]])
    event = connection.next_event()
    assert isinstance(event, h11.Response | h11.InformationalResponse), data
    assert event.status_code == head["status"]
    assert bytes(event.reason) == head["reason"]
    ours = [(field.lower(), value) for field, value, _, _ in head["headers"]]
    skip = {b"content-length", b"transfer-encoding"}  # h11 writes them anew
    assert [f for f in event.headers if f[0] not in skip] == [f for f in ours if f[0] not in skip]
    return True


class Reader:
    def __init__(self) -> None:
        self.done = False

    def on_headers_complete(self) -> None:
        self.done = True


def agrees_with_httptools(data: bytes) -> None:
    """Nothing that llhttp refuses is taken."""
    name, head = _native.probe_response(data)
    if name != "ok":
        return
    reader = Reader()
    parser = httptools.HttpResponseParser(reader)
    try:
        parser.feed_data(data[: head["head_bytes"]])
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise AssertionError(f"llhttp refuses what was taken: {error}: {data!r}") from error
    assert reader.done, data
    assert parser.get_status_code() == head["status"]


@settings(max_examples=300)
@given(mutated(RESPONSE_SEEDS))
def test_mutations_agree_with_h11_and_httptools(data: bytes) -> None:
    agrees_with_h11(data)
    agrees_with_httptools(data)


def test_many_seeded_mutations() -> None:
    """Fifteen thousand altered heads, the same ones in each run."""
    random_ = random.Random(9112)
    taken_by_us = 0
    for _ in range(15_000):
        data = bytearray(random_.choice(RESPONSE_SEEDS))
        for _ in range(random_.choice((1, 1, 2))):
            at = random_.randrange(len(data) + 1)
            kind = random_.randrange(3)
            if kind == 0:
                data[at:at] = random_.choice(SPICE)
            elif kind == 1:
                del data[at : at + random_.choice((1, 2, 8))]
            elif at < len(data):
                data[at] = random_.randrange(256)
        taken_by_us += agrees_with_h11(bytes(data))
        agrees_with_httptools(bytes(data))
    assert taken_by_us > 2_000  # else the mutations are too wild to say anything

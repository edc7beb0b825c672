"""Response heads: origins are read as strictly as clients; differential runs against h11 and httptools."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrubber import _native
from tests.reference import others, refused
from tests.reference.hostile import RESPONSE_SEEDS, altered, mutated

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


@settings(max_examples=300)
@given(mutated(RESPONSE_SEEDS))
def test_mutations_agree_with_h11_and_httptools(data: bytes) -> None:
    others.response_taken(data)


def test_many_seeded_mutations() -> None:
    """Fifteen thousand altered heads, the same ones in each run."""
    taken_by_us = sum(others.response_taken(data) for data in altered(RESPONSE_SEEDS, 15_000))
    assert taken_by_us > 2_000  # else the mutations are too wild to say anything

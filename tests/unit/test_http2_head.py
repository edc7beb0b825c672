"""Heads of HTTP/2 as HTTP/1.1 and back: a table, and anything against the slow reference; others read them too."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrubber import _native
from tests.fuzz import http2_head as target
from tests.reference.http2_head import HOP, PSEUDO, Fields

BEGIN = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/a?b")]
CONNECT = [(b":method", b"CONNECT"), *BEGIN[1:], (b":protocol", b"websocket")]


def without(name: bytes, *more: tuple[bytes, bytes]) -> Fields:
    return [*(one for one in BEGIN if one[0] != name), *more]


def changed(name: bytes, value: bytes) -> Fields:
    return [(one, value if one == name else old) for one, old in BEGIN]


REFUSED = {
    "no method": (without(b":method"), "bad_method"),
    "no scheme": (without(b":scheme"), "bad_target"),
    "no path": (without(b":path"), "bad_target"),
    "an empty path": (changed(b":path", b""), "bad_header_value"),
    "a path with a space": (changed(b":path", b"/a b"), "bad_header_value"),
    "a path that ends the line": (changed(b":path", b"/ HTTP/1.1\r\nx: y"), "bad_header_value"),
    "an absolute path": (changed(b":path", b"http://b/"), "bad_target"),
    "a scheme that is none": (changed(b":scheme", b"1http"), "bad_target"),
    "twice": ([*BEGIN, (b":method", b"GET")], "bad_header_value"),
    "unknown": ([*BEGIN, (b":status", b"200")], "bad_header_name"),
    "late": ([*BEGIN[:3], (b"x", b"y"), BEGIN[3]], "bad_header_name"),
    "upper case": ([*BEGIN, (b"X-A", b"y")], "bad_header_name"),
    "an empty name": ([*BEGIN, (b"", b"y")], "bad_header_name"),
    "a colon in a name": ([*BEGIN, (b"x:", b"y")], "bad_header_name"),
    "a value that ends the line": ([*BEGIN, (b"x", b"a\r\nb: c")], "bad_header_value"),
    "a zero": ([*BEGIN, (b"x", b"a\0")], "bad_header_value"),
    "two hosts": ([*BEGIN, (b"host", b"a.example"), (b"host", b"a.example")], "duplicate_host"),
    "another host": ([*BEGIN, (b"host", b"b.example")], "host_mismatch"),
    "connect": ([(b":method", b"CONNECT"), (b":authority", b"a:1")], "method_refused"),
    "another protocol": ([*CONNECT[:-1], (b":protocol", b"connect-udp")], "method_refused"),
    "a protocol without connect": ([*BEGIN, (b":protocol", b"websocket")], "method_refused"),
    "te": ([*BEGIN, (b"te", b"gzip")], "bad_header_name"),
    **{name.decode(): ([*BEGIN, (name, b"x")], "bad_header_name") for name in sorted(HOP)},
    "nothing": ([], "bad_method"),
    "too many": ([*BEGIN, *[(b"x", b"y")] * 129], "head_too_large"),
    "too long": ([*BEGIN, (b"x", b"y" * 24576)], "head_too_large"),
    "a bomb": ([*BEGIN, *[(b"x", b"y" * 4000)] * 40], "http2_header_bomb"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    fields, expected = REFUSED[case]
    assert target.probe().request(fields, True) == (expected, b"", False)
    target.request(fields, True)


TAKEN = {
    "plain": (BEGIN, True, b"GET /a?b HTTP/1.1\r\nhost: a.example\r\n\r\n"),
    "host alone": (without(b":authority", (b"host", b"b")), True, b"GET /a?b HTTP/1.1\r\nhost: b\r\n\r\n"),
    "both": (
        [*BEGIN, (b"x", b"y"), (b"host", b"A.Example")],
        True,
        b"GET /a?b HTTP/1.1\r\nhost: a.example\r\nx: y\r\n\r\n",
    ),
    "no host": (without(b":authority"), True, b"GET /a?b HTTP/1.1\r\n\r\n"),
    "cookies": (
        [*BEGIN, (b"cookie", b"a=b"), (b"x", b"y"), (b"cookie", b"c"), (b"cookie", b"")],
        True,
        b"GET /a?b HTTP/1.1\r\nhost: a.example\r\ncookie: a=b; c; \r\nx: y\r\n\r\n",
    ),
    "a body": (BEGIN, False, b"GET /a?b HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n"),
    "a length": (
        [*BEGIN, (b"content-length", b"3")],
        False,
        b"GET /a?b HTTP/1.1\r\nhost: a.example\r\ncontent-length: 3\r\n\r\n",
    ),
    "te": ([*BEGIN, (b"te", b"Trailers")], True, b"GET /a?b HTTP/1.1\r\nhost: a.example\r\nte: Trailers\r\n\r\n"),
}


@pytest.mark.parametrize("case", TAKEN)
def test_taken(case: str) -> None:
    fields, last, expected = TAKEN[case]
    outcome, head, chunked = target.probe().request(fields, last)
    assert (outcome, head) == ("ok", expected)
    assert chunked == (b"chunked" in expected)
    target.request(fields, last)


def test_a_websocket_is_asked_for_with_a_key_of_our_own() -> None:
    fields = [*CONNECT, (b"sec-websocket-key", b"theirs"), (b"sec-websocket-version", b"13"), (b"content-length", b"0")]
    outcome, head, chunked = target.probe().request(fields, False)
    assert (outcome, chunked) == ("ok", False)
    begin, key = head.split(b"sec-websocket-key: ")
    assert begin == (
        b"GET /a?b HTTP/1.1\r\nhost: a.example\r\nsec-websocket-version: 13\r\n"
        b"connection: upgrade\r\nupgrade: websocket\r\n"
    )
    assert len(key) == 28
    target.request(fields, False)


def test_as_many_fields_of_an_answer_as_there_may_be() -> None:
    """An origin's 128, 96 edits and ours: none is left out."""
    fields = [(b"X-%d" % n, b"v%d" % n) for n in range(240)]
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % one for one in fields) + b"\r\n"
    assert target.probe().response(head) == [(name.lower(), value) for name, value in fields]


NAMES = st.sampled_from(
    [*PSEUDO, *sorted(HOP), b"te", b"host", b"cookie", b"content-length", b"sec-websocket-key", b"x-a", b"X-B"]
)
VALUES = st.sampled_from(
    [
        b"GET",
        b"CONNECT",
        b"websocket",
        b"http",
        b"a.example",
        b"A.EXAMPLE",
        b"/",
        b"*",
        b"/a?b",
        b"3",
        b"trailers",
        b"a=b",
        b"",
    ]
)
ANY = st.lists(st.tuples(NAMES | st.binary(max_size=12), VALUES | st.binary(max_size=40)), max_size=14)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([[], BEGIN, CONNECT, BEGIN[:3], BEGIN[1:]]), ANY, st.booleans())
def test_any_fields_as_the_reference(begin: Fields, more: Fields, last: bool) -> None:
    target.request([*begin, *more], last)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 24600), st.integers(0, 140), st.booleans())
def test_what_just_fits(length: int, count: int, last: bool) -> None:
    fields = [*BEGIN, *[(b"c", b"d")] * count, (b"x", b"y" * max(0, length - 6 * count))]
    target.request(fields, last)
    target.request([*fields, (b"cookie", b"a"), (b"cookie", b"b")], last)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(NAMES | st.from_regex(rb"[!-9;-~]{1,9}", fullmatch=True), VALUES | st.binary(max_size=20)),
        max_size=12,
    )
)
def test_any_answer_as_the_reference(fields: Fields) -> None:
    target.response(fields)


def test_the_target_sees_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless:
        def request(self, fields: Fields, last: bool) -> tuple[str, bytes, bool]:
            return "ok", b"GET / HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % one for one in fields) + b"\r\n", False

    monkeypatch.setattr(target, "probe", Careless)
    with pytest.raises(AssertionError):
        target.request([*BEGIN, (b"x", b"a\r\nb: c")], True)
    assert _native.probe_request(b"GET / HTTP/1.1\r\nx: a\r\nb: c\r\n\r\n")[0] != "more"

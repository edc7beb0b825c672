"""Request heads: what is taken, what is refused and by which name; differential runs against h11 and httptools."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scrubber import _native
from tests.reference import others, refused
from tests.reference.hostile import REQUEST_SEEDS, altered, mutated

BODY_NONE, BODY_LENGTH, BODY_CHUNKED = 0, 1, 2
GET, HEAD, POST, OTHER = 1, 2, 3, 0
HOST = b"Host: example.org\r\n"


def outcome(data: bytes, **more: Any) -> str:
    return str(_native.probe_request(data, **more)[0])


def taken(data: bytes, **more: Any) -> dict[str, Any]:
    name, fields = _native.probe_request(data, **more)
    assert name == "ok", name
    return dict(fields)


def with_headers(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes = HOST) -> bytes:
    return start + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def test_fields_of_a_request() -> None:
    lines = [b"X-A:\t v a l \t", b"Content-Length: 12", b"X-E:"]
    data = with_headers(*lines, start=b"POST /a/b?x=1&y=? HTTP/1.1", host=b"Host: Example.org:8080\r\n") + b"body"
    head = taken(data)
    assert (head["method"], head["method_text"], head["minor"]) == (POST, b"POST", 1)
    assert (head["target"], head["path"], head["query"]) == (b"/a/b?x=1&y=?", b"/a/b", b"x=1&y=?")
    assert (head["host"], head["authority"]) == (b"Example.org", b"Example.org:8080")
    assert (head["body"], head["content_length"], head["keep_alive"]) == (BODY_LENGTH, 12, True)
    assert head["head_bytes"] == data.index(b"\r\n\r\n") + 4
    assert [(name, value) for name, value, _, _ in head["headers"]] == [
        (b"Host", b"Example.org:8080"),
        (b"X-A", b"v a l"),
        (b"Content-Length", b"12"),
        (b"X-E", b""),
    ]
    assert head["first"][1] == 0
    assert head["first"][2] == 2
    assert head["first"][3] == -1


def test_every_byte_that_a_value_may_hold() -> None:
    for byte in [*range(0x21, 0x7F), *range(0x80, 0x100), 0x20, 0x09]:
        head = taken(with_headers(b"X-A: a" + bytes([byte]) * 33 + b"b"))
        assert head["headers"][1][1] == b"a" + bytes([byte]) * 33 + b"b"


@pytest.mark.parametrize("pad", [0, 1, 15, 16, 17, 40])
def test_no_control_in_a_value(pad: int) -> None:
    for byte in [b for b in range(0x20) if b != 9] + [0x7F]:
        found = outcome(with_headers(b"X-A: " + b"v" * pad + bytes([byte]) + b"w" * 20))
        assert found == ("bad_line_end" if byte in {10, 13} else "bad_header_value"), byte


TOKEN_BYTES = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def test_names_are_tokens() -> None:
    for byte in range(256):
        expected = "ok" if byte in TOKEN_BYTES or byte == ord(":") else "bad_header_name"
        assert outcome(with_headers(b"X" + bytes([byte]) + b"A: v")) == expected, byte


def test_methods_are_tokens() -> None:
    for byte in range(256):
        found = outcome(with_headers(start=b"GE" + bytes([byte]) + b"T / HTTP/1.1"))
        if byte == ord(" "):
            assert found != "ok"
        else:
            assert found == ("ok" if byte in TOKEN_BYTES else "bad_method"), byte


@pytest.mark.parametrize("pad", [0, 15, 16, 33])
def test_targets_are_visible_ascii(pad: int) -> None:
    for byte in range(256):
        target = b"/" + b"a" * pad + b"?" + bytes([byte]) + b"b" * 17
        found = outcome(with_headers(start=b"GET " + target + b" HTTP/1.1"))
        sound = 0x21 <= byte <= 0x7E and byte != ord("#")
        assert found in ({"ok"} if sound else {"bad_target", "bad_version"}), byte


@pytest.mark.parametrize(("line", "reason"), refused.REQUEST_LINES.values(), ids=refused.REQUEST_LINES)
def test_refused_request_lines(line: bytes, reason: str) -> None:
    assert outcome(line + HOST + b"\r\n") == reason


@pytest.mark.parametrize(("lines", "reason"), refused.REQUEST_FIELDS.values(), ids=refused.REQUEST_FIELDS)
def test_refused_headers(lines: list[bytes], reason: str) -> None:
    assert outcome(with_headers(*lines)) == reason


@pytest.mark.parametrize("data", refused.LINE_ENDS.values(), ids=refused.LINE_ENDS)
def test_refused_line_ends(data: bytes) -> None:
    assert outcome(data) == "bad_line_end"


@pytest.mark.parametrize("host", refused.HOSTS)
@pytest.mark.parametrize("minor", [b"0", b"1"])
def test_bad_hosts(host: bytes, minor: bytes) -> None:
    assert outcome(b"GET / HTTP/1." + minor + b"\r\nHost: " + host + b"\r\n\r\n") == "bad_host"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"a", b"a"),
        (b"A.b-c_d.", b"A.b-c_d."),
        (b"a:1", b"a"),
        (b"a:65535", b"a"),
        (b"a:080", b"a"),
        (b"1.2.3.4:80", b"1.2.3.4"),
        (b"[::1]", b"[::1]"),
        (b"[2001:db8::1]:443", b"[2001:db8::1]"),
        (b"a" * 255, b"a" * 255),
    ],
)
def test_good_hosts(host: bytes, name: bytes) -> None:
    head = taken(b"GET / HTTP/1.1\r\nHost:" + host + b"\r\n\r\n")
    assert (head["host"], head["authority"]) == (name, host)


def test_missing_host() -> None:
    assert outcome(b"GET / HTTP/1.1\r\n\r\n") == "missing_host"
    assert outcome(b"GET http://a/ HTTP/1.1\r\n\r\n") == "missing_host"
    assert taken(b"GET / HTTP/1.0\r\n\r\n")["host"] == b""


@pytest.mark.parametrize(
    ("target", "host", "reduced", "path", "query"),
    [
        (b"http://example.org/", b"example.org", b"/", b"/", b""),
        (b"HTTP://Example.ORG/a?b", b"example.org:80", b"/a?b", b"/a", b"b"),
        (b"http://example.org", b"example.org", b"/", b"/", b""),
        (b"http://example.org:80//x", b"example.org", b"//x", b"//x", b""),
        (b"https://example.org/", b"example.org", b"/", b"/", b""),
        (b"https://example.org:443/", b"example.org", b"/", b"/", b""),
        (b"http://[::1]:81/x", b"[::1]:81", b"/x", b"/x", b""),
    ],
)
def test_absolute_form_is_reduced(target: bytes, host: bytes, reduced: bytes, path: bytes, query: bytes) -> None:
    head = taken(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert (head["target"], head["path"], head["query"], head["authority"]) == (reduced, path, query, host)


def test_absolute_form_names_the_host_of_http10() -> None:
    head = taken(b"GET http://example.org:81/x HTTP/1.0\r\n\r\n")
    assert (head["host"], head["authority"]) == (b"example.org", b"example.org:81")


def test_asterisk_form() -> None:
    head = taken(with_headers(start=b"OPTIONS * HTTP/1.1"))
    assert (head["target"], head["path"], head["query"]) == (b"*", b"*", b"")


def test_one_empty_line_first_is_overlooked() -> None:
    data = b"\r\n" + with_headers()
    assert taken(data)["head_bytes"] == len(data)


def test_other_methods_pass() -> None:
    for method in (b"PURGE", b"M-SEARCH", b"A" * 32, b"G3T"):
        head = taken(with_headers(start=method + b" / HTTP/1.1"))
        assert (head["method"], head["method_text"]) == (OTHER, method)


@pytest.mark.parametrize(
    ("minor", "connection", "keep_alive"),
    [
        (b"1", b"", True),
        (b"1", b"Connection: close\r\n", False),
        (b"1", b"Connection: CLOSE\r\n", False),
        (b"1", b"Connection: keep-alive, close\r\n", False),
        (b"1", b"Connection: a\r\nConnection: ,, close ,\r\n", False),
        (b"1", b"Connection: closed\r\n", True),
        (b"1", b"Connection:\r\n", True),
        (b"0", b"", False),
        (b"0", b"Connection: Keep-Alive\r\n", True),
        (b"0", b"Connection: keep-alive, close\r\n", False),
    ],
)
def test_keep_alive(minor: bytes, connection: bytes, keep_alive: bool) -> None:
    assert taken(b"GET / HTTP/1." + minor + b"\r\nHost: a\r\n" + connection + b"\r\n")["keep_alive"] is keep_alive


def test_hop_by_hop_fields_are_flagged() -> None:
    hop = {b"x-a", b"X-A", b"TE", b"Keep-Alive", b"Proxy-Connection", b"Trailer", b"Upgrade", b"Proxy-Authorization"}
    others = {b"X-AB", b"Accept", b"X"}
    head = taken(with_headers(b"Connection: X-A, te", *(name + b": 1" for name in hop | others)))
    assert {name for name, _, _, flag in head["headers"] if flag} == hop | {b"Connection"}


def test_bodies() -> None:
    assert taken(with_headers(b"Transfer-Encoding: Chunked"))["body"] == BODY_CHUNKED
    assert taken(with_headers(b"Content-Length: 0"))["body"] == BODY_LENGTH
    assert taken(with_headers(b"Content-Length:\t007 \t"))["content_length"] == 7
    assert taken(with_headers(b"Content-Length: 9223372036854775807"))["content_length"] == 2**63 - 1
    assert taken(with_headers(start=b"POST / HTTP/1.1"))["body"] == BODY_NONE
    assert outcome(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n") == "bad_transfer_encoding"


def test_expect_and_upgrade() -> None:
    assert taken(with_headers(b"Expect: 100-Continue", b"Content-Length: 1"))["expect_continue"]
    assert taken(with_headers(b"Expect: 100-continue", b"Transfer-Encoding: chunked"))["expect_continue"]
    assert not taken(with_headers(b"Expect: 100-continue"))["expect_continue"]
    assert not taken(b"GET / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")["expect_continue"]
    assert taken(with_headers(b"Connection: Upgrade", b"Upgrade: websocket, h2c/1.0"))["upgrade"]
    assert not taken(with_headers(b"Upgrade: websocket"))["upgrade"]
    assert not taken(with_headers(b"Connection: Upgrade"))["upgrade"]
    assert not taken(b"GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")["upgrade"]


def test_names_are_found_in_any_case() -> None:
    data = with_headers(b"X-Api-Key: 1", b"x-api-key: 2", b"X-Api-Keys: 3")
    assert _native.probe_find(data, b"x-api-key") == 1
    assert _native.probe_find(data, b"X-API-KEY", 2) == 2
    assert _native.probe_find(data, b"x-api-key", 3) == -1
    assert _native.probe_find(data, b"x-api-kez") == -1


class TestLimits:
    def test_request_line(self) -> None:
        line = b"GET /" + b"a" * 85 + b" HTTP/1.1"
        data = with_headers(start=line)
        assert outcome(data, limits=(len(line), 16384, 128)) == "ok"
        assert outcome(data, limits=(len(line) - 1, 16384, 128)) == "line_too_long"
        assert outcome(b"GET /" + b"a" * 200, limits=(100, 16384, 128)) == "line_too_long"
        assert outcome(b"GET /" + b"a" * 90, limits=(100, 16384, 128)) == "more"

    def test_header_line(self) -> None:
        line = b"X-A: " + b"v" * 95
        assert outcome(with_headers(line), limits=(100, 16384, 128)) == "ok"
        assert outcome(with_headers(line), limits=(99, 16384, 128)) == "head_too_large"

    def test_head(self) -> None:
        data = with_headers(b"X-A: " + b"v" * 100)
        assert outcome(data + b"body", limits=(8192, len(data), 128)) == "ok"
        assert outcome(data, limits=(8192, len(data) - 1, 128)) == "head_too_large"
        assert outcome(data[:-1], limits=(8192, len(data) - 1, 128)) == "head_too_large"
        assert outcome(data[:-2], limits=(8192, len(data) - 1, 128)) == "more"

    def test_count(self) -> None:
        data = with_headers(*[b"X-%d: v" % i for i in range(9)])
        assert outcome(data, limits=(8192, 16384, 10)) == "ok"
        assert outcome(data, limits=(8192, 16384, 9)) == "too_many_headers"

    def test_hard_caps_hold_whatever_the_limits_say(self) -> None:
        boundless = (2**32 - 1, 2**32 - 1, 2**32 - 1)
        assert outcome(with_headers(*[b"X-%d: v" % i for i in range(127)]), limits=boundless) == "ok"
        assert outcome(with_headers(*[b"X-%d: v" % i for i in range(128)]), limits=boundless) == "too_many_headers"
        assert outcome(with_headers(b"X: " + b"v" * 16384), limits=boundless) == "head_too_large"
        assert outcome(b"GET /" + b"v" * 20000, limits=boundless) == "line_too_long"


def test_statuses() -> None:
    answers = _native.HTTP1_STATUS
    assert {reason: status for reason, status in answers.items() if status != 400} == {
        "version_unsupported": 505,
        "line_too_long": 414,
        "path_too_long": 414,
        "head_too_large": 431,
        "too_many_headers": 431,
        "method_refused": 501,
        "bad_expect": 417,
        "too_many_ranges": 416,
        "bad_status": 502,
    }


# How it came


SEEDS = st.sampled_from(REQUEST_SEEDS)


@given(SEEDS, st.lists(st.integers(0, 400), max_size=12), st.binary(max_size=40))
def test_pieces_are_read_as_the_whole(data: bytes, cuts: list[int], after: bytes) -> None:
    whole = _native.probe_request(data + after)
    cut = sorted(c for c in cuts if c < len(data + after))
    pieces = _native.probe_request(data + after, cuts=cut)
    assert pieces == whole


@pytest.mark.parametrize("data", REQUEST_SEEDS)
def test_byte_by_byte(data: bytes) -> None:
    assert _native.probe_request(data, cuts=list(range(len(data)))) == _native.probe_request(data)


def test_what_is_refused_is_refused_wherever_it_is_cut() -> None:
    """Of every case there is: in two pieces, at each place; and byte by byte."""
    for name, case in refused.requests().items():
        expected = "ok" if case.body else case.reason
        places = range(len(case.data)) if len(case.data) < 500 else range(0, len(case.data), 97)
        for cuts in ([], *([at] for at in places), list(places)):
            found, _ = _native.probe_request(case.data, limits=(8192, 16384, 100), cuts=cuts)
            assert found == expected, f"{name}, cut at {cuts}"


@given(SEEDS, st.binary(max_size=64))
def test_nothing_after_the_head_has_a_say(data: bytes, after: bytes) -> None:
    assert _native.probe_request(data + after) == _native.probe_request(data)


@given(SEEDS, st.integers(0, 400))
def test_a_part_of_a_sound_head_is_never_taken_nor_refused(data: bytes, cut: int) -> None:
    assert outcome(data[: min(cut, len(data) - 1)]) == "more"


# What others say


@settings(max_examples=300)
@given(mutated(REQUEST_SEEDS))
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX: \x0c\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n")
@example(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n")
def test_mutations_agree_with_h11_and_httptools(data: bytes) -> None:
    others.request_taken(data)


def test_many_seeded_mutations() -> None:
    """Thirty thousand altered heads, the same ones in each run."""
    taken_by_us = sum(others.request_taken(data) for data in altered(REQUEST_SEEDS, 30_000))
    assert taken_by_us > 3_000  # else the mutations are too wild to say anything

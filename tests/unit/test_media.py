"""Who is answered in JSON: what Accept says of it, by cases and by the slow reference; of broken heads, too."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scrubber import _native
from tests.reference import media as reference


def head(*fields: str) -> bytes:
    lines = "".join(f"Accept: {field}\r\n" for field in fields)
    return f"GET / HTTP/1.1\r\nHost: a\r\n{lines}X-After: application/json\r\n\r\n".encode()


def takes_json(*fields: str) -> bool:
    return bool(_native.probe_accepts_json(head(*fields)))


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
CASES = [
    ([], False),
    ([""], False),
    (["*/*"], False),
    (["application/*"], False),
    ([BROWSER], False),
    (["application/json"], True),
    (["APPLICATION/Json"], True),
    (["application/problem+json"], True),
    (["application/vnd.github+json"], True),
    (["application/*+json"], True),
    (["application/json, text/plain, */*"], True),
    (["application/json;charset=utf-8"], True),
    (["text/plain, application/json"], True),
    (["text/html", "application/json;q=0.1"], False),
    (["text/plain", "application/json"], True),
    # Weights: 0 leaves out, the heavier wins, a tie is JSON's.
    (["application/json;q=0"], False),
    (["application/json;q=0.000"], False),
    (["application/json;q=0.001"], True),
    (["application/json;q=0, application/problem+json"], True),
    (["application/problem+json;q=0, application/json"], False),
    (["text/html, application/json"], True),
    (["text/html;q=0.9, application/json"], True),
    (["text/html, application/json;q=0.9"], False),
    (["text/html;q=0.5, application/json ; q=0.5"], True),
    (["text/html;q=0.5, application/json;Q=0.499"], False),
    (["text/html;level=1, application/json;q=0.9"], False),
    # The most precise range speaks for text/html.
    (["text/*;q=0.9, text/html;q=0.1, application/json;q=0.5"], True),
    (["text/*;q=0.9, application/json;q=0.5"], False),
    (["*/*, text/*;q=0.1, application/json;q=0.5"], True),
    (["*/*, application/json;q=0.5"], False),
    (["*/*;q=0.1, application/json;q=0.5"], True),
    # JSON that is not named, but in a part of a name or a parameter.
    (["application/jsonx"], False),
    (["application/xjson"], False),
    (["application/+json"], False),
    (["text/json"], False),
    (["text/plain;a=application/json"], False),
    (['text/plain;a=",application/json,"'], False),
    (['text/plain;a="\\",application/json,"'], False),
    # What is not sound says nothing, and hides nothing that follows.
    (["application/json;q=2"], False),
    (["application/json;q=1.001"], False),
    (["application/json;q=0.1234"], False),
    (["application/json;q=-1"], False),
    (["application/json;q="], False),
    (["application/json;q"], False),
    (["application/json; =1"], False),
    (["application/json text/html"], False),
    (["application/json;a=\"x"], False),
    (["text/html;q=nan, application/json;q=0.1"], True),
    (["a b c, application/json"], True),
    ([",, ,application/json;;q=1;,"], True),
    (["application/json;q=1."], True),
    (["application/json;q=0."], False),
    # Of a range that is there twice the heavier counts.
    (["application/json;q=0, application/json;q=0.5"], True),
    (["text/html;q=0.2, application/json;q=0.5, text/html;q=0.9"], False),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "expected"), CASES)
def test_cases(fields: list[str], expected: bool) -> None:
    assert takes_json(*fields) is expected
    assert reference.accepts_json(fields) is expected


PARTS = st.sampled_from(
    ["application/json", "application/problem+json", "application/hal+json", "application/*+json", "APPLICATION/JSON",
     "text/html", "text/*", "*/*", "image/jpeg", "json", ",", ", ", ";", " ", "\t", ";q=", ";q=0", ";q=0.5", "; Q=0.25",
     ";q=1", ";q=1.5", "q=0.7", ";a=b", ';a="x,y"', ';a="\\""', '"', "\\", "=", "/", "1", "."]
)  # fmt: skip


@settings(max_examples=600)
@given(st.lists(st.lists(PARTS, max_size=9).map("".join), max_size=3))
@example(["application/json;q=0.5", "text/html;q=0.6"])
@example(["application/json;q=json;q=0.5"])
def test_as_the_reference(fields: list[str]) -> None:
    assert takes_json(*fields) is reference.accepts_json([field.strip(" \t") for field in fields])


def refused(data: bytes) -> bool:
    return bool(_native.probe_accepts_json(data, whole=False))


ACCEPT = b"Accept: application/json\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"NO/SUCH GET\r\n" + ACCEPT + b"\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n" + ACCEPT + b"\r\n",
        b"GET / HTTP/2.0\r\n" + ACCEPT + b"\r\n",
        b"\r\nGET / HTTP/2.0\r\n" + ACCEPT + b"\r\n",
        b"GET / HTTP/1.1\r\n" + ACCEPT + b"Host : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + ACCEPT + b"X-Half",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + ACCEPT,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 127 + ACCEPT + b"C: d\r\n\r\n",
    ],
)
def test_of_a_head_that_is_refused_or_not_whole_the_fields_before_the_fault_count(data: bytes) -> None:
    assert refused(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r",
        b"\r\n",
        b"\n",
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.1\r\n",
        ACCEPT,
        b"GET / HTTP/1.1\r\nHost : a\r\n" + ACCEPT + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + ACCEPT + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 128 + ACCEPT + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\n" + ACCEPT[2:],
    ],
)
def test_what_stands_behind_it_does_not(data: bytes) -> None:
    assert not refused(data)

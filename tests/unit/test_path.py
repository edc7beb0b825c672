"""Paths for matching: the spellings of one path become one; the slow reference; bounds."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scrubber import _native
from tests.reference import path as reference


def normal(path: bytes, cap: int = 2048) -> bytes:
    return bytes(_native.probe_path(path, cap))


@pytest.mark.parametrize(
    "path",
    [
        b"/login", b"//login", b"///login", b"/%6Cogin", b"/%6cogin", b"/./login", b"/x/../login", b"/../login",
        b"/../../login",
        b"/x/y/../../login", b"/x/./../login", b"/%2e/login", b"/x/%2E%2e/login", b"/x/.%2e/login", b"/x%2F..%2flogin",
        b"/%2flogin",
        b"/x/..;/login", b"/x/..;a=b/login", b"/.;x/login", b"/;x/login", b"/x/%2e%2e%3bv/login",
        b"/" + b"a" * 5000 + b"/../login",
        b"/" + b"a/" * 3000 + b"../" * 3000 + b"login",
    ],
)  # fmt: skip
def test_spellings_of_one_path(path: bytes) -> None:
    assert normal(path) == b"/login"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/", b"/"),
        (b"//", b"/"),
        (b"/..", b"/"),
        (b"/.", b"/"),
        (b"/a/", b"/a/"),
        (b"/a/.", b"/a/"),
        (b"/a/b/..", b"/a/"),
        (b"/a//b/", b"/a/b/"),
        (b"/Login", b"/Login"),
        (b"/login;jsessionid=1", b"/login"),
        (b"/a...", b"/a..."),
        (b"/...", b"/..."),
        (b"/..a", b"/..a"),
        (b"/a%20b", b"/a%20b"),
        (b"/%c3%A4", b"/%C3%A4"),
        (b"/%00x", b"/%00x"),
        (b"/%0d%0a", b"/%0D%0A"),
        (b"/%7f", b"/%7F"),
        (b"/%256Cogin", b"/%256Cogin"),
        (b"/%25%32%65", b"/%252e"),
        (b"/%zz%6", b"/%zz%6"),
        (b"/%", b"/%"),
        (b"/100%/a", b"/100%/a"),
        (b"/a%3fb", b"/a?b"),
        (b"/a%5cb", b"/a\\b"),
        (b"*", b"*"),
        (b"", b""),
    ],
)
def test_paths(path: bytes, expected: bytes) -> None:
    assert normal(path) == expected
    assert reference.normalise(path, 2048) == expected


SEGMENTS = st.sampled_from(
    [b"", b".", b"..", b"a", b"bc", b"%2e", b"%2E%2e", b"%2f", b"..;x", b".;", b";", b"...", b"%", b"%4", b"%41",
    b"%25", b"%c3", b"d" * 20]
)


@given(st.lists(SEGMENTS, max_size=14), st.integers(0, 40))
@example([b"abcd", b"ef", b".."], 5)
def test_as_the_reference(segments: list[bytes], cap: int) -> None:
    path = b"/" + b"/".join(segments)
    assert normal(path, cap) == reference.normalise(path, cap)


@given(st.text(alphabet="/.%2eEfF;aA", max_size=60), st.integers(0, 70))
def test_any_text_as_the_reference(text: str, cap: int) -> None:
    path = b"/" + text.encode()
    assert normal(path, cap) == reference.normalise(path, cap)


@given(st.binary(max_size=80), st.integers(0, 30))
def test_any_bytes_stay_within_the_cap(path: bytes, cap: int) -> None:
    assert normal(path, cap) == reference.normalise(path, cap)


@given(st.lists(SEGMENTS.filter(lambda s: s not in {b"%25", b"%", b"%4"}), max_size=10))
def test_normal_paths_stay_as_they_are(segments: list[bytes]) -> None:
    once = normal(b"/" + b"/".join(segments))
    assert normal(once) == once

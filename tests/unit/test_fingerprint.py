"""Header-order fingerprints: golden values, what counts and what does not, and the slow reference."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubber import _native
from tests.reference import fingerprint as reference

Headers = list[tuple[str, str]]
ROOT = Path(__file__).resolve().parents[2]


def of(headers: Headers, minor: int = 1) -> str:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return str(_native.probe_fingerprint(f"GET / HTTP/1.{minor}\r\n{lines}\r\n".encode()))


CURL = [("Host", "a"), ("User-Agent", "curl/8.5.0"), ("Accept", "*/*")]
FIREFOX = [
    ("Host", "a"), ("User-Agent", "Mozilla/5.0"), ("Accept", "text/html"), ("Accept-Language", "en"),
    ("Accept-Encoding", "gzip, deflate"), ("Connection", "keep-alive"), ("Upgrade-Insecure-Requests", "1"),
]  # fmt: skip
CHROME = [
    ("Host", "a"), ("Connection", "keep-alive"), ("sec-ch-ua", "x"), ("sec-ch-ua-mobile", "?0"), ("sec-ch-ua-platform",
    "x"),
    ("Upgrade-Insecure-Requests", "1"), ("User-Agent", "Mozilla/5.0"), ("Accept", "text/html"), ("Sec-Fetch-Site",
    "none"),
    ("Accept-Encoding", "gzip, deflate, br"), ("Accept-Language", "en"),
]  # fmt: skip
GOLDEN = {
    "curl": (CURL, 1, "h1_1c79ea7d2b7e5d53"),
    "curl --http1.0": (CURL, 0, "h1_26521e7a1a9a7ba6"),
    "firefox": (FIREFOX, 1, "h1_3448589e7964137f"),
    "chrome": (CHROME, 1, "h1_0905a48807753b71"),
}


@pytest.mark.parametrize(("headers", "minor", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_golden_values(headers: Headers, minor: int, expected: str) -> None:
    assert of(headers, minor) == expected
    assert reference.fingerprint(minor, headers) == expected


def test_example_of_the_documentation() -> None:
    text = (ROOT / "docs" / "fingerprints.md").read_text()
    example = re.search(r"```\n(GET .*?)\n```", text, re.DOTALL)
    value = re.search(r"and the fingerprint `(h1_[0-9a-f]{16})`", text)
    assert example is not None
    assert value is not None
    assert _native.probe_fingerprint(example[1].replace("\n", "\r\n").encode() + b"\r\n\r\n") == value[1]


def test_documentation_lists_what_is_left_out() -> None:
    text = (ROOT / "docs" / "fingerprints.md").read_text()
    for name in reference.PASSING | reference.ALWAYS_SENT | set(reference.PASSING_PREFIXES):
        assert f"`{name}`" in text


@pytest.mark.parametrize("name", sorted(reference.PASSING))
def test_passing_names_do_not_count(name: str) -> None:
    value = {"content-length": "5", "transfer-encoding": "chunked", "expect": "100-continue"}.get(name, "x")
    assert of([*CURL[:1], (name.title(), value), *CURL[1:]]) == of(CURL)


@pytest.mark.parametrize(
    "name",
    ["If-None-Match", "if-x", "Sec-Fetch-Mode", "Sec-CH-UA-Arch", "Sec-WebSocket-Key", "X-Forwarded-For",
    "X-Requested-With", "x-",
     "Access-Control-Request-Method"],
)  # fmt: skip
def test_passing_families_do_not_count(name: str) -> None:
    assert of([*CURL, (name, "1")]) == of(CURL)


@pytest.mark.parametrize(
    "name", ["Accept-Language", "If", "Sec-CH-UA", "Sec-Fetch", "Xa", "Access-Control", "DNTX", "Cookie2", "Connection",
    "Sec-CHX"]
)
def test_other_names_count(name: str) -> None:
    assert of([*CURL, (name, "close")]) != of(CURL)


def test_order_counts_and_case_does_not() -> None:
    assert of([CURL[0], CURL[2], CURL[1]]) != of(CURL)
    assert of([(name.upper(), value) for name, value in CURL]) == of(CURL)


def test_what_connection_lists_does_not_count() -> None:
    assert of([*CURL, ("Connection", "close, odd"), ("Odd", "1")]) == of([*CURL, ("Connection", "close")])
    assert of([*CURL, ("Odd", "1"), ("Connection", "close, odd")]) == of([*CURL, ("Connection", "close")])
    assert of([*CURL, ("Odd", "1"), ("Connection", "close")]) != of([*CURL, ("Connection", "close")])


def test_headers_beyond_the_bound_do_not_count() -> None:
    flood = [(f"a-header-of-some-length-to-fill-it-{i:03}", "v") for i in range(60)]
    assert of([*CURL, *flood]) == of([*CURL, *flood, ("Accept-Language", "en")])
    assert of([*CURL, *flood[:30]]) != of([*CURL, *flood[:30], ("Accept-Language", "en")])
    assert of([*CURL, *flood]) == reference.fingerprint(1, [*CURL, *flood])


NAMES = [
    "Accept", "accept-encoding", "Accept-Language", "User-Agent", "Cookie", "Referer", "X-A", "if-match",
    "Sec-Fetch-Dest", "sec-ch-ua",
    "Sec-CH-UA-Model", "DNT", "Odd", "Via", "TE", "Connection", "Cache-Control", "a", "Access-Control-Request-Headers",
    "Pragma", "A" * 300,
]  # fmt: skip
VALUES = st.sampled_from(["", "close", "odd", "Odd, a", "keep-alive", ", a ,,\tdnt"])


@given(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=40), st.integers(0, 1))
def test_as_the_reference(headers: Headers, minor: int) -> None:
    every = [("Host", "a"), *headers]
    assert of(every, minor) == reference.fingerprint(minor, every)


def test_orders_do_not_collide() -> None:
    random_ = random.Random(1)
    names = [f"h{i}" for i in range(8)]
    seen = {tuple(random_.sample(names, 8)) for _ in range(3000)}
    assert len({of([("Host", "a"), *((name, "") for name in order)]) for order in seen}) == len(seen)

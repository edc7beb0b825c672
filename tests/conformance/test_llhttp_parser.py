"""llhttp's own requests at the parser: what strict llhttp refuses is refused, but for exceptions explained below."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scrubber import _native
from tests.corpora import CORPORA

FILE = CORPORA / "llhttp.json"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there: set SCRUBBER_CORPORA to its folder")

# Refused by llhttp, or taken only when it is lenient, and taken here.
UPGRADE = "llhttp pauses at an Upgrade so that its caller takes over; the request is sound (RFC 9110 7.8)"
TAKEN = {
    "LLHTTP-010": UPGRADE,
    "LLHTTP-014": UPGRADE,
    "LLHTTP-015": UPGRADE,
    "LLHTTP-016": UPGRADE,
    "LLHTTP-037": "an unfinished head: llhttp refuses its end of file, here it is waited for until the deadline",
}
# Taken by llhttp and refused here.
REFUSED = {
    "LLHTTP-008": "bytes after `Connection: close` (the fence of the test's own page) are no request",
    "LLHTTP-077": "`*` with another method than OPTIONS (RFC 9112 3.2.4)",
    "LLHTTP-085": "RTSP is not HTTP",
    "LLHTTP-105": "Host `0.0.0.0=5000`: `=` is no character of a host name that resolves",
    "LLHTTP-106": "the same",
    "LLHTTP-112": "HTTP/0.9",
    "LLHTTP-141": "`#` in the target (RFC 9112 3.2), and a coding beside chunked",
    "LLHTTP-155": "absolute-form without a path, with a query; and it differs from the Host put in",
    "LLHTTP-157": "absolute-form that differs from the Host put in",
    "LLHTTP-159": "`#` in the target",
}


def cases() -> list[dict[str, Any]]:
    return list(json.loads(FILE.read_text())) if FILE.exists() else []


def payload(case: dict[str, Any]) -> bytes:
    """With a Host where there is none, as the corpus asks."""
    text = str(case["payload"])
    if "host:" not in text.lower():
        line, end, rest = text.partition("\r\n")
        text = f"{line}{end}Host: a\r\n{rest}"
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def refused(data: bytes) -> bool:
    """The requests in data are read one after the other until one is refused or the bytes end."""
    while data:
        name, head = _native.probe_request(data)
        if name != "ok":
            return bool(name != "more")
        data = data[head["head_bytes"] :]
        if head["body"] == 2:
            outcome, _, consumed = _native.probe_chunked([data])
            if outcome != "end":
                return bool(outcome != "more")
            data = data[consumed:]
        else:
            data = data[head["content_length"] :]
    return False


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case['id']}: {case['title']}")
def test_what_strict_llhttp_refuses_is_refused(case: dict[str, Any]) -> None:
    expected = case["strict_expect"] != "accept"
    if case["id"] in TAKEN:
        assert expected
        expected = False
    if case["id"] in REFUSED:
        assert not expected
        expected = True
    assert refused(payload(case)) == expected


def test_exceptions_are_cases() -> None:
    assert TAKEN.keys() | REFUSED.keys() <= {case["id"] for case in cases()}

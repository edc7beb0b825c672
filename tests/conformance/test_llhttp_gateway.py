"""llhttp's own requests through the running gateway: what strict llhttp refuses is refused; what arrives is sound.

Which cases differ on purpose, and why, stands with the parser's own run (test_llhttp_parser.py): the gateway adds none.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.conformance.test_llhttp_parser import FILE, REFUSED, TAKEN, payload
from tests.conformance.through import Seen, multiplied, send_all, unsound
from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Recorder

pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there: set SCRUBBER_CORPORA to its folder")

# Bytes behind a request that ends its connection: llhttp refuses them; here the request is answered, the connection
# ends (RFC 9112 9.6), and what follows is never looked at.
ENDED = {"LLHTTP-003", "LLHTTP-004", "LLHTTP-008"}

Run = tuple[dict[str, Seen], Recorder, list[bytes]]


def cases() -> list[dict[str, Any]]:
    return list(json.loads(FILE.read_text())) if FILE.exists() else []


@pytest.fixture(scope="module")
def run(proxy: type[Proxy]) -> Run:
    with proxy() as found:
        found.origin.received = {}
        payloads = [payload(case) for case in cases()]
        seen = asyncio.run(send_all(found.port, payloads))
        found.whole()
        return {case["id"]: one for case, one in zip(cases(), seen, strict=True)}, found.origin, payloads


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case['id']}: {case['title']}")
def test_what_strict_llhttp_refuses_is_refused(run: Run, case: dict[str, Any]) -> None:
    seen = run[0][case["id"]]
    if case["id"] in ENDED:
        assert seen.statuses == (200,)
        assert seen.closed
        return
    expected = case["strict_expect"] != "accept"
    if case["id"] in TAKEN:
        expected = False
    if case["id"] in REFUSED:
        expected = True
    assert seen.refused == expected, seen


def test_what_arrives_is_sound(run: Run) -> None:
    """h11 reads all of it, refuses nothing, and there are no more requests than were sent."""
    _, origin, payloads = run
    assert origin.requests
    # A body that was announced and never came whole is cut off; a malformed one must never begin a request.
    assert not origin.malformed
    assert not unsound(origin)
    assert not multiplied(origin, payloads)

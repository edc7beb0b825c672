"""llhttp's own requests through the running gateway: what strict llhttp refuses is refused; what arrives is sound.

Which cases differ on purpose, and why, stands with the parser's own run (test_llhttp_parser.py): the gateway adds none.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.conformance.test_llhttp_parser import FILE, REFUSED, TAKEN, payload
from tests.conformance.through import Seen, complaint_of_h11, send_all
from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Request

pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there: set SCRUBBER_CORPORA to its folder")

# Bytes behind a request that ends its connection: llhttp refuses them; here the request is answered, the connection
# ends (RFC 9112 9.6), and what follows is never looked at.
ENDED = {"LLHTTP-003", "LLHTTP-004", "LLHTTP-008"}

Run = tuple[dict[str, Seen], list[Request], list[bytes]]


def cases() -> list[dict[str, Any]]:
    return list(json.loads(FILE.read_text())) if FILE.exists() else []


@pytest.fixture(scope="module")
def run(proxy: type[Proxy]) -> Run:
    with proxy() as found:
        seen = asyncio.run(send_all(found.port, [payload(case) for case in cases()]))
        found.whole()
        by_id = {case["id"]: one for case, one in zip(cases(), seen, strict=True)}
        return by_id, list(found.origin.requests), list(found.origin.malformed)


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
    _, requests, malformed = run
    assert requests
    # A body that was announced and never came whole is cut off; a malformed one must never begin a request.
    assert not malformed
    complaints = {request.head: said for request in requests if (said := complaint_of_h11(request))}
    assert not complaints

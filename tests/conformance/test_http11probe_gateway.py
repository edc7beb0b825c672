"""Http11Probe against the running gateway: its own rules judge what comes back, h11 what arrives at the origin."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from tests.conformance.through import Seen, complaint_of_h11, send_all
from tests.corpora import CORPORA
from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Request

FILE = CORPORA / "http11probe.json"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there: set SCRUBBER_CORPORA to its folder")
CONDITION = re.compile(r"[\w\s<>=(),]+")
MUST_FAILURES_MAX = 3


def cases() -> list[dict[str, Any]]:
    return list(json.loads(FILE.read_text())) if FILE.exists() else []


def payload(case: dict[str, Any], port: int) -> bytes:
    text = case["payload"].replace("{HOST}", f"127.0.0.1:{port}").replace("{PORT}", str(port))
    try:
        return bytes(text.encode("latin-1"))
    except UnicodeEncodeError:  # one case holds a character beyond: its bytes are UTF-8
        return bytes(text.encode())


def verdict(case: dict[str, Any], seen: Seen) -> str:
    """The outcome of the first rule that holds."""
    state = "CS_ClosedByServer" if seen.closed else "CS_TimedOut" if seen.first is None else "CS_Open"
    names = {"R": seen.first, "state": state, **{n: n for n in ("CS_ClosedByServer", "CS_Open", "CS_TimedOut")}}
    for condition, outcome in case["rules"]:
        assert CONDITION.fullmatch(condition), condition
        try:
            if eval(condition, {"__builtins__": {}}, names):  # noqa: S307 - checked above: names, numbers, comparisons
                return str(outcome)
        except TypeError:  # None in a comparison: the rule does not hold
            continue
    raise AssertionError(f"no rule of {case['id']} holds")


@pytest.fixture(scope="module")
def run(proxy: type[Proxy]) -> tuple[dict[str, Seen], list[Request], list[bytes]]:
    """Every case once, and what arrived at the origin."""
    with proxy() as found:
        seen = asyncio.run(send_all(found.port, [payload(case, found.port) for case in cases()]))
        found.whole()
        by_id = {case["id"]: one for case, one in zip(cases(), seen, strict=True)}
        return by_id, list(found.origin.requests), list(found.origin.malformed)


Run = tuple[dict[str, Seen], list[Request], list[bytes]]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["id"])
def test_case(run: Run, case: dict[str, Any]) -> None:
    seen = run[0][case["id"]]
    assert verdict(case, seen) != "Fail", f"{case['title']}: {seen}"


def test_at_most_three_scored_musts_fail(run: Run) -> None:
    failed = [
        case["id"]
        for case in cases()
        if case["scored"] and case["level"] == "Must" and verdict(case, run[0][case["id"]]) != "Pass"
    ]
    assert len(failed) <= MUST_FAILURES_MAX, failed


def test_what_arrives_is_sound(run: Run) -> None:
    _, requests, malformed = run
    assert requests
    assert not malformed
    complaints = {request.head: said for request in requests if (said := complaint_of_h11(request))}
    assert not complaints

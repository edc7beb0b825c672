"""Http11Probe against the running gateway: its own rules judge what comes back, h11 what arrives at the origin."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conformance.through import Seen, multiplied, send_all, unsound
from tests.corpora import CORPORA
from tests.e2e.proxy import Proxy
from tests.e2e.recorder import Recorder

FILE = CORPORA / "http11probe.json"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there: set SCRUBBER_CORPORA to its folder")
CONDITION = re.compile(r"[\w\s<>=(),]+")
FAILURES_MAX = 1


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


@dataclass(frozen=True, slots=True)
class Run:
    """Every case once, and what arrived at the origin."""

    seen: dict[str, Seen]
    origin: Recorder
    payloads: list[bytes]


@pytest.fixture(scope="module")
def run(proxy: type[Proxy]) -> Run:
    with proxy() as found:
        found.origin.received = {}
        payloads = [payload(case, found.port) for case in cases()]
        seen = asyncio.run(send_all(found.port, payloads))
        found.whole()
        by_id = {case["id"]: one for case, one in zip(cases(), seen, strict=True)}
        return Run(by_id, found.origin, payloads)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["id"])
def test_case(run: Run, case: dict[str, Any]) -> None:
    seen = run.seen[case["id"]]
    assert verdict(case, seen) != "Fail", f"{case['title']}: {seen}"


def test_at_most_one_scored_case_fails(run: Run) -> None:
    scored = [case for case in cases() if case["scored"]]
    failed = [case["id"] for case in scored if verdict(case, run.seen[case["id"]]) == "Fail"]
    musts = [
        case["id"]
        for case in scored
        if case["level"] == "Must" and verdict(case, run.seen[case["id"]]) not in ("Pass", "Fail")
    ]
    print(f"scored cases that fail: {failed or 'none'}; scored musts that do not pass: {musts or 'none'}")
    assert len(scored) > 50
    assert len(failed) <= FAILURES_MAX, failed
    assert len(musts) <= FAILURES_MAX, musts


def test_what_arrives_is_sound(run: Run) -> None:
    """h11 reads all of it, refuses nothing, and there are no more requests than were sent."""
    assert run.origin.requests
    assert not run.origin.malformed
    assert not unsound(run.origin)
    assert not multiplied(run.origin, run.payloads)

"""Http11Probe at the parser: none of its rules calls what the parser does a failure.

The rules are written for answers on a wire. Here a refusal stands for its status and a close; what the parser takes
stands for 200 (a real origin behind the gateway); ENGINE lists what only the whole gateway can answer.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from scrubber import _native
from tests.corpora import CORPORA

FILE = CORPORA / "http11probe.json"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there: set SCRUBBER_CORPORA to its folder")

# Taken by the parser; whether the connection then stands as the rules want is the gateway's doing.
ENGINE = {
    "COMP-CHUNKED-NO-FINAL": "a body that never ends runs into its deadline",
    "MAL-INCOMPLETE-REQUEST": "a head that never ends runs into its deadline",
    "MAL-EMPTY-REQUEST": "a connection without bytes runs into its deadline",
    "COMP-HTTP10-DEFAULT-CLOSE": "closed after the answer, as keep_alive is false",
    "COMP-UNKNOWN-METHOD": "the origin answers 405 or 501; any token is a method (RFC 9110 9.1)",
}


def cases() -> list[dict[str, Any]]:
    return list(json.loads(FILE.read_text())) if FILE.exists() else []


def payload(case: dict[str, Any]) -> bytes:
    text = case["payload"].replace("{HOST}", "127.0.0.1:8080").replace("{PORT}", "8080")
    try:
        return bytes(text.encode("latin-1"))
    except UnicodeEncodeError:  # one case holds a character beyond: its bytes are UTF-8
        return bytes(text.encode())


def answer(data: bytes) -> int | None:
    """Status of the refusal, 200 where all was taken, None where the parser waits for more."""
    name, head = _native.probe_request(data)
    if name == "more":
        return None
    if name != "ok":
        return int(_native.HTTP1_STATUS[name])
    rest = data[head["head_bytes"] :]
    if head["body"] == 2:
        outcome = _native.probe_chunked([rest])[0]
        return {"more": None, "end": 200}.get(outcome, 400)
    return 200 if len(rest) >= head["content_length"] else None


CONDITION = re.compile(r"[\w\s<>=(),]+")


def verdict(case: dict[str, Any], status: int | None) -> str:
    """First rule that holds. A refusal closes the connection; where the parser waits, its deadline does."""
    names = {
        "R": status,
        "state": "CS_TimedOut" if status is None else "CS_ClosedByServer",
        **{name: name for name in ("CS_ClosedByServer", "CS_Open", "CS_TimedOut")},
    }
    for condition, outcome in case["rules"]:
        assert CONDITION.fullmatch(condition), condition
        try:
            if eval(condition, {"__builtins__": {}}, names):  # noqa: S307 - checked above: names, numbers, comparisons
                return str(outcome)
        except TypeError:  # None in a comparison: the rule does not hold
            continue
    raise AssertionError(f"no rule of {case['id']} holds")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["id"])
def test_no_failure(case: dict[str, Any]) -> None:
    found = verdict(case, answer(payload(case)))
    if case["id"] in ENGINE:
        return
    if case["scored"] and case["level"] == "Must":
        assert found == "Pass" or (found == "Warn" and answer(payload(case)) == 200)
    assert found != "Fail", ENGINE


def test_engine_cases_are_taken_or_waited_for() -> None:
    found = {case["id"]: answer(payload(case)) for case in cases() if case["id"] in ENGINE}
    taken = {"COMP-HTTP10-DEFAULT-CLOSE", "COMP-UNKNOWN-METHOD"}
    assert found == {name: 200 if name in taken else None for name in ENGINE}

"""ClientHellos that others recorded: JA3 and JA4 come out as theirs do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scrubber._native import probe_hello
from tests.corpora import CORPORA

FILE = CORPORA / "clienthello.json"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there: set SCRUBBER_CORPORA to its folder")
CASES: list[dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else []


def test_there_are_as_many_as_ever() -> None:
    assert len(CASES) == 74


@pytest.mark.parametrize("case", CASES, ids=[each["id"] for each in CASES])
def test_fingerprints(case: dict[str, Any]) -> None:
    said = probe_hello(bytes.fromhex(case["records_hex"]))
    assert isinstance(said, dict)
    assert (said["ja3"], said["ja4"]) == (case["ja3"], case["ja4"])

"""docs/threat-model.md names the test of each promise: they exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOMS = ("", "unit", "e2e", "conformance")


def test_every_test_that_the_threat_model_names_is_there() -> None:
    text = (TESTS.parent / "docs/threat-model.md").read_text()
    named = set(re.findall(r"`((?:\w+/)*[\w*]+\.py|\w+/)`", text))
    assert len(named) > 30
    assert [name for name in sorted(named) if not any(list((TESTS / room).glob(name)) for room in ROOMS)] == []

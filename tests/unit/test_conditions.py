"""Conditions of rules: what `when` means, on real heads."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubber import _native
from scrubber.mandate import layout
from scrubber.mandate.schema import Pattern
from tests.reference import judge as reference
from tests.unit.judging import TWO_AREAS, build, rule


@pytest.fixture
def make(tmp_path: Path) -> Any:
    return functools.partial(build, tmp_path)


CASES: list[tuple[str, dict[str, Any], bool]] = [
    ('path = "/login"', {"target": "/login"}, True),
    ('path = "/login"', {"target": "/login?x=/logout"}, True),
    ('path = "/login"', {"target": "/a/../%6Cogin"}, True),
    ('path = "/login"', {"target": "/login/"}, False),
    ('path = "/api/*"', {"target": "/api/v1"}, True),
    ('path = "/api/*"', {"target": "/api"}, False),
    ('path = "*.php"', {"target": "/a/b.php"}, True),
    ('path = "*.php"', {"target": "/a/b.php/c"}, False),
    ('path = "*/admin/*"', {"target": "/x/admin/y"}, True),
    ('path = ["/a", "/b", "*c"]', {"target": "/b"}, True),
    ('path = ["/a", "/b", "*c"]', {"target": "/d"}, False),
    ('method = "POST"', {"method": "POST"}, True),
    ('method = ["GET", "HEAD"]', {"method": "POST"}, False),
    ('method = "other"', {"method": "PROPFIND"}, True),
    ('method = "other"', {"method": "GET"}, False),
    ('host = "*.test"', {"host": "SITE.Test"}, True),
    ('host = "b*"', {"host": "site.test"}, False),
    ('host = "*ite.T*"', {"host": "SITE.test"}, True),
    ('query = "*union*"', {"target": "/?q=union+select"}, True),
    ('query = "*union*"', {"target": "/union"}, False),
    ("header = { x-probe = true }", {"more": (("X-Probe", ""),)}, True),
    ("header = { x-probe = true }", {}, False),
    ("header = { x-probe = false }", {}, True),
    ("header = { x-probe = false }", {"more": (("X-Probe", "1"),)}, False),
    ('header = { User-Agent = "*curl*" }', {"more": (("User-Agent", "curl/8"),)}, True),
    ('header = { user-agent = ["x*", "curl*"] }', {"more": (("User-Agent", "curl/8"),)}, True),
    ('header = { user-agent = ["x*", "curl*"], accept = "text*" }', {"more": (("User-Agent", "curl/8"),)}, False),
    ('client = ["192.0.2.0/25", "2001:db8::/32"]', {}, True),
    ('client = ["192.0.2.0/25", "2001:db8::/32"]', {"client": "192.0.2.200"}, False),
    ('client = ["192.0.2.0/25", "2001:db8::/32"]', {"client": "2001:db8:5::1"}, True),
    ("known = false", {}, True),
    ("known = true", {}, False),
    ("account = true", {"more": (("Cookie", "a=1; sid=9"),)}, True),
    ("account = true", {}, False),
    ("account = false", {}, True),
    ("rush = true", {}, False),
    ("rush = false", {}, True),
    ('link_load = ">= 0%"', {}, False),
    ('path = "/a", method = "POST"', {"target": "/a"}, False),
    ('path = "/a", method = "POST"', {"target": "/a", "method": "POST"}, True),
]


@pytest.mark.parametrize(("when", "asked", "matches"), CASES)
def test_conditions(make: Any, when: str, asked: dict[str, Any], matches: bool) -> None:
    b = make(rule("r", "1/h", '["throttle"]', more=f"when = {{ {when} }}"), gateway=TWO_AREAS)
    b.ask(**asked)
    assert (b.ask(**asked)["verdict"] == "THROTTLE") == matches


def test_a_fingerprint_as_condition(make: Any) -> None:
    face = make("").open(face=2).facts["fingerprint"]
    b = make(rule("r", "", '["deny"]', more=f'when = {{ fingerprint = ["h1_{0:016x}", "h1_{face:016x}"] }}'))
    assert b.ask(face=2)["verdict"] == "DENY"
    assert b.ask(face=1, client="192.0.2.2")["verdict"] == "PASS"


@given(
    st.text("ab", max_size=8),
    st.text("ab", min_size=1, max_size=4),
    st.sampled_from(["exact", "prefix", "suffix", "contains"]),
)
def test_texts_match_as_the_reference_has_it(text: str, pattern: str, match: Any) -> None:
    expected = reference.matches(Pattern(match, pattern), text)
    for cased in (text, text.upper()):
        found = _native.probe_text_matches(cased.encode(), pattern.encode(), layout.MATCHES[match], True)
        assert found == expected
    assert _native.probe_text_matches(text.encode(), pattern.encode(), layout.MATCHES[match], False) == expected

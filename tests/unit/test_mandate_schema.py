"""The mandate: every field, every small language, every error at once with path, expectation and hint."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubber import _native
from scrubber.config.walk import Report, read
from scrubber.errors import FilesRefused, ValueRefused, errors_of
from scrubber.mandate import check, schema
from scrubber.mandate.load import check_files, load_all, load_mandate
from scrubber.mandate.schema import HeaderTest, Mandate, Pattern, Rung, parse_pattern, parse_per, parse_rung
from tests.unit.files import BAD, GOOD, HEAD, MINIMAL_GATEWAY, NOW, ROOT, unmatched, wanted, write

S = 1_000_000_000


@pytest.mark.parametrize("path", BAD, ids=lambda p: p.stem)
def test_every_error_of_a_bad_file_is_reported_at_once(path: Path) -> None:
    problems = check_files([path], now=NOW)
    for severity, mark in (("error", "# expect:"), ("warning", "# warn:")):
        rows = wanted(path, mark)
        found = [p for p in problems if p.severity == severity]
        extra, missing = unmatched(found, rows)
        assert (extra, missing) == ([], []) or (severity == "warning" and not rows and not missing)
    assert errors_of(problems), "a bad file has errors"
    assert all(p.expected for p in errors_of(problems)), "each error says what was expected"


def test_the_good_files_have_no_errors() -> None:
    problems = check_files([GOOD / "full-gateway.toml"], now=NOW)
    assert [str(p) for p in errors_of(problems)] == []
    assert {(p.path, p.severity) for p in problems} == {
        ("rule[0].then[1]", "warning"),  # challenge
        ("rule[8]", "warning"),  # blackhole, and no upstream
    }


def test_a_mandate_named_beside_its_gateway_is_reported_once() -> None:
    alone = check_files([GOOD / "full-gateway.toml"], now=NOW)
    both = check_files([GOOD / "full-mandate.toml", GOOD / "full-gateway.toml", GOOD / "second-mandate.toml"], now=NOW)
    assert both == alone


def test_every_field_is_read() -> None:
    mandate, problems = load_mandate(GOOD / "full-mandate.toml", now=NOW)
    assert mandate is not None, problems
    assert mandate.id == "portal-2026-06"
    assert mandate.head.expires == datetime.datetime(2026, 7, 31, 22, tzinfo=datetime.UTC)
    assert mandate.proportion.block_ttl_max_ns == 6 * 3600 * S
    assert mandate.proportion.clients_share_max_ppm == 20_000
    assert mandate.never_block == (
        "198.51.100.0/24",
        "2001:db8:ffff::/48",
        "203.0.113.0/24",
        "192.0.2.128/25",
        "2001:db8:aaaa::/48",
        "203.0.113.200/32",
    )
    rules = {r.name: r for r in mandate.rules}
    assert rules["login"].per == ("account", "client")
    assert rules["login"].then[2] == Rung("block", ttl_ns=600 * S)
    assert rules["flood"].then[0] == Rung("observe", hold_ns=2 * S)
    assert (rules["flood"].climb_ns, rules["flood"].calm_ns) == (3 * S, 20 * S)
    assert rules["search"].then == (Rung("throttle"),)
    assert rules["search"].when.path == (
        Pattern("exact", "/search"),
        Pattern("prefix", "/find"),
        Pattern("suffix", ".search"),
        Pattern("contains", "query"),
    )
    assert rules["all"].newcomer_share_ppm == 250_000
    assert not rules["all"].names_source
    when = rules["probe"].when
    assert when.header == {
        "User-Agent": HeaderTest(True, (Pattern("contains", "sqlmap"), Pattern("prefix", "curl/"))),
        "Accept": HeaderTest(False),
        "Cookie": HeaderTest(True),
        "x-a": HeaderTest(True, (Pattern("exact", "b"),)),
    }
    assert when.fingerprint == ("0123456789abcdef", "fedcba9876543210")
    assert (when.known, when.account, when.rush) == (False, False, True)
    assert rules["pipe"].when.link_load_ppm == 800_000
    assert msgspec.json.decode(msgspec.json.encode(mandate), type=Mandate) == mandate


def test_unsigned_is_accepted_only_where_the_gateway_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL_GATEWAY, m=HEAD)
    assert [m.id for m in load_all(path, now=NOW).mandates] == ["m"]
    write(tmp_path, MINIMAL_GATEWAY.replace("allow_unsigned = true", ""))
    with pytest.raises(FilesRefused) as refused:
        load_all(path, now=NOW)
    assert [p.message for p in errors_of(refused.value.problems)] == ["the mandate is not signed"]


def test_a_gateway_without_mandates_is_warned_about(tmp_path: Path) -> None:
    loaded = load_all(write(tmp_path, MINIMAL_GATEWAY.replace("mandates", "#")), now=NOW)
    assert [(p.path, p.severity) for p in loaded.problems] == [("mandates", "warning")]


@pytest.mark.parametrize(("day", "fits"), [(1, False), (30, True), (31, False)])
def test_validity_is_a_matter_of_now(tmp_path: Path, day: int, fits: bool) -> None:
    text = HEAD.replace("2026-05-01T", "2026-05-02T").replace("2026-07-01T", "2026-05-31T")
    (tmp_path / "m.toml").write_text(text, encoding="utf-8")
    mandate, problems = load_mandate(tmp_path / "m.toml", now=datetime.datetime(2026, 5, day, tzinfo=datetime.UTC))
    assert (mandate is not None) == fits
    assert bool(problems) != fits


def test_accounts_that_an_area_does_not_know_are_warned_about(tmp_path: Path) -> None:
    rule = '[[rule]]\nname = "a"\nper = "account+client"\nlimit = "1/s"\nthen = ["throttle"]\n'
    loaded = load_all(write(tmp_path, MINIMAL_GATEWAY, m=HEAD + rule), now=NOW)
    assert [p.path for p in loaded.problems] == ["rule[0]"]
    assert "cookie:NAME" in loaded.problems[0].hint
    with_account = MINIMAL_GATEWAY + 'account = "basic"\n'
    assert load_all(write(tmp_path, with_account, m=HEAD + rule), now=NOW).problems == ()


def test_numbers_are_the_core_s() -> None:
    core = _native.probe_policy_layout()["CAPACITIES"]
    assert (
        core["RULES_MAX"],
        core["RULES_AREA_MAX"],
        core["CHARGES_MAX"],
        core["PREFIX_SETS_MAX"],
        core["RUNGS_MAX"],
    ) == (check.RULES_MAX, check.RULES_AREA_MAX, check.CHARGES_MAX, check.PREFIX_SETS_MAX, schema.RUNGS_MAX)


@pytest.mark.parametrize(
    ("text", "rung"),
    [
        ("observe", Rung("observe")),
        ("observe 500ms", Rung("observe", hold_ns=S // 2)),
        ("block 10m", Rung("block", ttl_ns=600 * S)),
        (" deny  1m ", Rung("deny", hold_ns=60 * S)),
    ],
)
def test_rungs(text: str, rung: Rung) -> None:
    assert parse_rung(text) == rung


@pytest.mark.parametrize(
    "value", ["", "block", "blackhole", "ban 5m", "throttle soon", "block 0s", 5, None, "observe,deny"]
)
def test_what_is_no_rung(value: object) -> None:
    with pytest.raises(ValueRefused):
        parse_rung(value)


def test_keys() -> None:
    assert parse_per("client") == ("client",)
    assert parse_per("account + client") == ("account", "client")
    for wrong in ("", "ip", "client+", "client+client", "client+path+host", 3):
        with pytest.raises(ValueRefused):
            parse_per(wrong)


@given(st.text(max_size=12))
def test_a_pattern_is_text_with_a_star_at_either_end(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except ValueRefused:
        assert not text.strip("*") or "*" in text.strip("*") or text.startswith("**") or text.endswith("**")
        return
    front = "*" if pattern.match in ("suffix", "contains") else ""
    back = "*" if pattern.match in ("prefix", "contains") else ""
    assert front + pattern.text + back == text


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just(NOW),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "mandate",
    "proportion",
    "rule",
    "name",
    "per",
    "limit",
    "then",
    "when",
    "never_block",
    "expires",
    "areas",
    "path",
]


@given(
    st.dictionaries(
        st.sampled_from(FIELDS), JSONISH | st.lists(st.dictionaries(st.sampled_from(FIELDS), JSONISH), max_size=2)
    )
)
def test_any_tree_becomes_a_mandate_or_problems(tree: dict[str, object]) -> None:
    report = Report("any")
    mandate = read(Mandate, tree, report)
    check.check_mandate(mandate, report, NOW)
    assert isinstance(mandate, Mandate)
    assert not report.ok, "no such tree is a whole mandate"


def test_every_field_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "mandate.md").read_text(encoding="utf-8")
    structs = (schema.Head, schema.Proportion, schema.NeverBlockFile, schema.Rule, schema.When)
    fields = {f.encode_name for s in structs for f in msgspec.structs.fields(s)}
    named = set(re.findall(r"`([a-z_0-9]+)`", text))
    assert fields - named == set()
    assert set(schema.MEASURES) | set(schema.KEYS) <= named

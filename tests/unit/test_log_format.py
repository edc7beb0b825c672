"""Combined lines, templates, syslog messages: what is in them, and that nothing a client sent gets out of its place."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubber.config import log as config
from scrubber.config.log import Destination, Log, Target, parse_template, resolve_log
from scrubber.errors import ValueRefused
from scrubber.server.log_format import COMPOSED, SyslogMessage, plain, renderer
from tests.corpora import CORPORA
from tests.unit.files import ROOT

# What reads the combined format: Apache's LogFormat, with the escapes that Apache and nginx write.
COMBINED = re.compile(
    rb"(?P<client>\S+) (?P<ident>\S+) (?P<user>\S+) "
    rb"\[(?P<time>\d{2}/[A-Z][a-z]{2}/\d{4}:\d{2}:\d{2}:\d{2} [+-]\d{4})\] "
    rb'"(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?P<bytes>\d+|-) '
    rb'"(?P<referrer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)"'
)
LINE: dict[str, Any] = {
    "@timestamp": "2026-11-22T16:59:07.123Z",
    "http.request.method": "GET",
    "url.path": "/a b",
    "url.query": "q=1",
    "http.version": "1.1",
    "client.ip": "2001:db8::7",
    "user_agent.original": 'x "y" \\ z\n',
    "http.response.status_code": 200,
    "http.response.body.bytes": 512,
    "event.duration": 1_234_567,
    "scrubber.origin_ns": 250_000,
    "scrubber.known": True,
}


def rendered(form: str, line: dict[str, Any]) -> bytes:
    render = renderer(form)
    assert render is not None
    return render(json.dumps(line).encode())


def test_a_combined_line() -> None:
    assert rendered("combined", LINE) == (
        b'2001:db8::7 - - [22/Nov/2026:16:59:07 +0000] "GET /a b?q=1 HTTP/1.1" 200 512 "-" "x \\x22y\\x22 \\x5C z\\x0A"'
    )


def test_a_combined_line_of_bytes_that_were_no_request() -> None:
    line = rendered("combined", {"@timestamp": LINE["@timestamp"], "source.ip": "192.0.2.1"})
    found = COMBINED.fullmatch(line)
    assert found is not None
    assert (found["request"], found["status"]) == (b"-", b"000")


@given(st.dictionaries(st.sampled_from(sorted(LINE)), st.text(max_size=40)))
def test_whatever_the_client_sent_a_combined_line_reads_back(sent: dict[str, str]) -> None:
    line = {**LINE, **{k: v for k, v in sent.items() if k in ("url.path", "url.query", "user_agent.original")}}
    out = rendered("combined", line)
    assert COMBINED.fullmatch(out), out
    assert b"\n" not in out
    assert out.isascii()


def test_the_pattern_reads_real_lines_of_others() -> None:
    path = CORPORA / "access-combined.log"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    lines = path.read_bytes().splitlines()
    assert sum(COMBINED.fullmatch(line) is not None for line in lines) >= len(lines) * 0.999


def test_a_template() -> None:
    form = "{{{client}}} {request:json} {status} {known} {rule} {rule:json} {total_ms} {origin_ms:json} {url.query}"
    assert rendered(form, LINE) == (b'{2001:db8::7} "GET /a b?q=1 HTTP/1.1" 200 true - null 1.235 0.25 q=1')


@given(st.text(max_size=60))
def test_a_json_field_is_json_whatever_is_in_it(text: str) -> None:
    out = rendered('{{"agent":{user_agent:json},"status":{status:json}}}', {**LINE, "user_agent.original": text})
    assert msgspec.json.decode(out) == {"agent": text, "status": 200}
    assert b"\n" not in out


def test_a_line_that_cannot_be_read_is_kept_as_text() -> None:
    render = renderer("combined")
    assert render is not None
    assert render(b'{"broken\n') == b"{\\x22broken\\x0A"


def test_plain_text_has_no_way_out() -> None:
    assert plain("as it is") == "as it is"
    assert plain('"\\\x00\x7f\u00e4\u20ac') == "\\x22\\x5C\\x00\\x7F\\xE4\\xE2\\x82\\xAC"


def test_every_name_for_templates_is_in_the_manual() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [name for name in (*config.FIELDS, *config.COMPOSED) if f"`{name}`" not in text] == []


def test_every_composed_name_is_made_by_someone() -> None:
    assert set(COMPOSED) == set(config.COMPOSED)


@pytest.mark.parametrize("text", ["{nothing}", "{client", "client}", "{client:xml}", "{}", "{{client}"])
def test_a_template_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueRefused):
        parse_template(text)


# ── syslog ──

SYSLOG = re.compile(rb"<(\d{1,3})>1 (\S+) (\S+) (\S+) (\S+) (\S+) - (.*)", re.DOTALL)


def test_a_message_has_time_facility_and_kind() -> None:
    message = SyslogMessage(Destination(Target("syslog_unix", "/dev/log"), facility="local3", tag="gate"))
    line = json.dumps(LINE, separators=(",", ":")).encode()
    found = SYSLOG.fullmatch(message.of(line, b"text", act=False))
    assert found is not None
    pri, time, host, app, pid, kind, text = found.groups()
    assert (pri, time, app, kind, text) == (b"158", b"2026-11-22T16:59:07.123Z", b"gate", b"access", b"text")
    assert host
    assert pid.isdigit()
    assert message.of(b"{}", b"x", act=True).startswith(b"<157>1 - ")
    assert b" act - x" in message.of(b"{}", b"x", act=True)


# ── what goes where ──


def test_acts_go_where_json_goes_else_to_a_file_of_their_own() -> None:
    state = ROOT / "state"
    plain_file, json_file = Target("file", "a.log"), Target("file", "b.log")
    both = resolve_log(Log((Destination(plain_file, "combined"), Destination(json_file))), state)
    assert [each.to.address for each in both.acts] == [str(state / "b.log")]
    one = resolve_log(Log((Destination(plain_file, "combined"),)), state)
    assert [each.to.address for each in one.acts] == [str(state / "acts.log")]
    off = resolve_log(Log((Destination(Target("off")),)), state)
    assert (off.access, off.acts) == ((), ())
    named = resolve_log(Log((Destination(Target("off")),), acts=(Destination(json_file),)), state)
    assert [each.to.address for each in named.acts] == [str(state / "b.log")]


@pytest.mark.parametrize(
    "text", ["-", "off", "a.log", "syslog:/dev/log", "syslog+udp://127.0.0.1:514", "syslog+tcp://[::1]:601"]
)
def test_targets_are_written_as_they_are_read(text: str) -> None:
    assert str(config.TARGET.parse(text)) == text

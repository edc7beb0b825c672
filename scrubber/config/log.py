"""`[log]` of the gateway file: where access lines and acts go, and in which form.

Owns: the text forms of destinations, templates and the rate of sampling; the names that a template may use. A template
is read once, into parts; whoever renders only walks them (scrubber/server/log_format.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from scrubber.config.network import UNIX_PATH_BYTES_MAX, parse_endpoint
from scrubber.config.walk import Doc, OneOrMore, Prepared, Reads, Report, nearest
from scrubber.errors import ValueRefused

DESTINATIONS_MAX = 8
TEMPLATE_CHARS_MAX = 2048
PASS_PER_S_MAX = 1_000_000_000
ACTS_FILE = "acts.log"  # in state_dir, where no destination takes JSON

Escape = Literal["plain", "json"]
Facility = Literal[
    "user", "daemon", "auth", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"
]

# Names for templates → the names of the access line. Any other name with a dot in it is taken as the line's own.
FIELDS: dict[str, str] = {
    "time": "@timestamp",
    "client": "client.ip",
    "peer": "source.ip",
    "peer_port": "source.port",
    "proof": "scrubber.proof",
    "method": "http.request.method",
    "path": "url.path",
    "query": "url.query",
    "host": "url.domain",
    "version": "http.version",
    "status": "http.response.status_code",
    "bytes_in": "http.request.body.bytes",
    "bytes_out": "http.response.body.bytes",
    "bytes_in_all": "http.request.bytes",
    "bytes_out_all": "http.response.bytes",
    "referrer": "http.request.referrer",
    "user_agent": "user_agent.original",
    "request_id": "http.request.id",
    "area": "scrubber.area",
    "rule": "rule.name",
    "verdict": "scrubber.verdict",
    "rung": "scrubber.rung",
    "case": "scrubber.case",
    "known": "scrubber.known",
    "fingerprint": "scrubber.fingerprint",
    "origin": "scrubber.origin",
    "retries": "scrubber.retries",
    "reason": "error.code",
    "outcome": "scrubber.outcome",
    "total_ns": "event.duration",
    "queue_ns": "scrubber.queue_ns",
    "connect_ns": "scrubber.connect_ns",
    "origin_ns": "scrubber.origin_ns",
    "weight": "scrubber.weight",
}
# Made of several fields when a line is rendered.
COMPOSED = ("request", "target", "clf_time", "total_ms", "queue_ms", "connect_ms", "origin_ms")
COMBINED = '{client} - - [{clf_time}] "{request}" {status} {bytes_out} "{referrer}" "{user_agent}"'

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_LINE_NAME = re.compile(r"[@A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)+")
FORMAT_EXPECTED = '"ecs", "combined" or a template as "{client} {request} {status}"'
TARGET_EXPECTED = (
    'a path, "-" for stdout, "syslog:/dev/log", "syslog+udp://ADDRESS:PORT", "syslog+tcp://ADDRESS:PORT" or "off"'
)


@dataclass(frozen=True)
class Field:
    """A place in a template. `name`: of the access line, or one of COMPOSED."""

    name: str
    escape: Escape


@dataclass(frozen=True, slots=True)
class Target:
    """Where lines go. `address`: a path, or an IP address."""

    kind: Literal["off", "stdout", "file", "syslog_unix", "syslog_udp", "syslog_tcp"]
    address: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.kind == "stdout":
            return "-"
        if self.kind == "syslog_unix":
            return f"syslog:{self.address}"
        if self.kind in ("syslog_udp", "syslog_tcp"):
            host = f"[{self.address}]" if ":" in self.address else self.address
            return f"syslog+{self.kind[7:]}://{host}:{self.port}"
        return self.address or "off"

    @property
    def is_syslog(self) -> bool:
        return self.kind.startswith("syslog")


def parse_template(text: str) -> tuple[str | Field, ...]:
    """Literal text and fields, in order. ValueRefused: an unknown name, a brace that is not doubled."""
    parts: list[str | Field] = []
    at = 0
    for found in _FIELD.finditer(text):
        parts.append(text[at : found.start()])
        at = found.end()
        if found[1] is not None:
            parts.append(_field(found[1]))
        elif found[0] in ("{{", "}}"):
            parts.append(found[0][0])
        else:
            hint = 'write "{{" and "}}" for braces that shall stand in the line'
            raise ValueRefused(f"a single {found[0]!r} in a template", expected=FORMAT_EXPECTED, hint=hint)
    parts.append(text[at:])
    return tuple(_joined(parts))


def _joined(parts: Iterable[str | Field]) -> Iterable[str | Field]:
    literal = ""
    for part in parts:
        if isinstance(part, str):
            literal += part
            continue
        if literal:
            yield literal
        literal = ""
        yield part
    if literal:
        yield literal


def _field(text: str) -> Field:
    name, colon, how = text.partition(":")
    if colon and how != "json":
        hint = f'write "{{{name}:json}}" for a JSON value, "{{{name}}}" for text'
        raise ValueRefused(f"{{{text}}}: no such way to write a field", expected=FORMAT_EXPECTED, hint=hint)
    if name not in FIELDS and name not in COMPOSED and not _LINE_NAME.fullmatch(name):
        raise ValueRefused(
            f"{{{text}}} is not a field", expected=FORMAT_EXPECTED, hint=nearest(name, [*FIELDS, *COMPOSED])
        )
    return Field(FIELDS.get(name, name), "json" if colon else "plain")


def _parse_format(value: Any) -> str:
    if not isinstance(value, str) or (value not in ("ecs", "combined") and "{" not in value):
        hint = nearest(value, ["ecs", "combined"]) if isinstance(value, str) else ""
        raise ValueRefused(f"{value!r} is not a format", expected=FORMAT_EXPECTED, hint=hint)
    if value in ("ecs", "combined"):
        return value
    if len(value) > TEMPLATE_CHARS_MAX:
        raise ValueRefused("a template of that length", expected=f"at most {TEMPLATE_CHARS_MAX} characters")
    if any(not c.isprintable() and c != "\t" for c in value):
        hint = "one request is one line: the line end is written for you"
        raise ValueRefused("a control character in a template", expected=FORMAT_EXPECTED, hint=hint)
    parse_template(value)
    return value


def _parse_target(value: Any) -> Target:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueRefused(f"{value!r} is not a destination", expected=TARGET_EXPECTED)
    if value in ("-", "off"):
        return Target("stdout" if value == "-" else "off")
    if value.startswith("syslog+"):
        transport, _, where = value[7:].partition("://")
        if transport not in ("udp", "tcp") or not where:
            hint = 'write "syslog+udp://127.0.0.1:514" or "syslog+tcp://127.0.0.1:601"'
            raise ValueRefused(f"{value!r} is not a syslog destination", expected=TARGET_EXPECTED, hint=hint)
        endpoint = parse_endpoint(where)
        if not endpoint.port:
            raise ValueRefused(f"{value!r}: a receiver has a port", expected=TARGET_EXPECTED)
        return Target("syslog_udp" if transport == "udp" else "syslog_tcp", endpoint.address, endpoint.port)
    if value.startswith("syslog:"):
        path = value[7:]
        if not path.startswith("/") or len(path.encode()) > UNIX_PATH_BYTES_MAX:
            raise ValueRefused(f"{value!r} is not an absolute path of a socket", expected=TARGET_EXPECTED)
        return Target("syslog_unix", path)
    if value == "syslog" or "://" in value:
        hint = 'the local one is mostly "syslog:/dev/log"' if value == "syslog" else "syslog+udp or syslog+tcp"
        raise ValueRefused(f"{value!r} is not a destination", expected=TARGET_EXPECTED, hint=hint)
    return Target("file", value)


def _parse_rate(value: Any) -> int:
    """Lines a second; 0: no bound."""
    expected = 'lines a second as "1000/s", or "off"'
    if value == "off":
        return 0
    found = re.fullmatch(r"(\d{1,10})\s*/\s*s", value.strip()) if isinstance(value, str) else None
    if found is None or not 1 <= int(found[1]) <= PASS_PER_S_MAX:
        raise ValueRefused(f"{value!r} is not a rate of lines", expected=expected, hint='"off" writes every line')
    return int(found[1])


def _parse_tag(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]{1,48}", value):
        raise ValueRefused(f"{value!r} is not an APP-NAME", expected="1 to 48 printable ASCII characters, no space")
    return value


FORMAT = Reads(_parse_format, "ecs", '`"ecs"`, `"combined"` or a template', lambda text: f'"{text}"')
TARGET = Reads(_parse_target, Target("off"), "destination", lambda target: f'"{target}"')
RATE = Reads(
    _parse_rate, 0, 'lines a second, `"1/s"` to `"1000000000/s"`, or `"off"`', lambda n: f'"{n}/s"' if n else '"off"'
)


def _destination_table(value: Any) -> Any:
    return {"to": value} if isinstance(value, str) else value


DESTINATION = Prepared(_destination_table, 'a destination or a table, as "access.log" or { to = "access.log" }')


class Destination(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place for lines. `format` "": the section's."""

    to: Annotated[
        Target,
        TARGET,
        Doc(
            'A path relative to `state_dir`; `"-"`: stdout; `"syslog:/dev/log"`: RFC 5424 to a Unix socket (datagram, '
            'else stream); `"syslog+udp://…"`, `"syslog+tcp://…"`: to an address (TCP: octet counting, RFC 6587).',
            '"syslog+tcp://127.0.0.1:601"',
        ),
    ]
    format: Annotated[
        str,
        Reads(_parse_format, "", FORMAT.says, FORMAT.show),
        Doc("The form of access lines here. Acts are always ECS JSON.", '"combined"', default="the section's"),
    ] = ""
    facility: Annotated[Facility, Doc("Facility of syslog messages.")] = "local0"
    tag: Annotated[
        str,
        Reads(_parse_tag, "scrubber", "1–48 printable ASCII characters", lambda tag: f'"{tag}"'),
        Doc("APP-NAME of syslog messages."),
    ] = "scrubber"


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In the end `access` and `acts` are resolved: no "off", paths absolute, formats filled in."""

    access: Annotated[
        tuple[Annotated[Destination, DESTINATION], ...],
        OneOrMore(),
        Doc(
            'Where access lines go: one destination or several, each as text or as a table; `"off"` for none.',
            '["access.log", { to = "syslog:/dev/log", format = "combined" }]',
            default='`"access.log"`',
        ),
    ] = (Destination(Target("file", "access.log")),)
    format: Annotated[str, FORMAT, Doc("The form of access lines where a destination does not say its own.")] = "ecs"
    acts: Annotated[
        tuple[Annotated[Destination, DESTINATION], ...],
        OneOrMore(at_least=0),
        Doc(
            "Where acts (blocks, rungs, reloads) go, always as ECS JSON.",
            '"acts.log"',
            default="the destinations of `access` that take ECS JSON; where there are none, `acts.log`",
        ),
    ] = ()
    sample_pass_per_s: Annotated[
        int,
        RATE,
        Doc(
            "At most so many lines a second for requests that passed and were served below 500; workers share the rate "
            "out. What is left out is counted (`scrubber_log_sampled_total`), and the next line says for how many it "
            "stands (`scrubber.weight`). Refusals and errors are always written.",
            '"1000/s"',
        ),
    ] = msgspec.field(default=0, name="sample_pass")


def check_log(log: Log, report: Report) -> None:
    """What is wrong with it as a whole."""
    for name, places in (("access", log.access), ("acts", log.acts)):
        if len(places) > DESTINATIONS_MAX:
            report.error(f"log.{name}", f"{len(places)} destinations", f"at most {DESTINATIONS_MAX}")
        seen: dict[Target, int] = {}
        for i, place in enumerate(places):
            here = f"log.{name}[{i}]"
            known = not report.spoiled(f"{here}.to")
            if known and place.to.kind == "off" and len(places) > 1:
                report.error(f"{here}.to", '"off" beside other destinations', "either, not both")
            elif known and place.to in seen:
                report.error(f"{here}.to", f"{place.to} is also log.{name}[{seen[place.to]}]", "each destination once")
            if known:
                seen.setdefault(place.to, i)
            if name == "acts" and place.format not in ("", "ecs"):
                report.error(f"{here}.format", "acts have one form", '"ecs"', "leave it out")
    none = bool(log.access) and log.access[0].to.kind == "off" and not report.spoiled("log.access[0].to")
    if none and log.sample_pass_per_s:
        report.warning("log.sample_pass", "no access line is written anyway", 'a destination in [log] access, or "off"')


def resolve_log(log: Log, state_dir: Path) -> Log:
    """Formats and destinations as they are obeyed; "off" is an empty list."""
    replace = msgspec.structs.replace

    def whole(place: Destination, form: str) -> Destination:
        to = place.to
        if to.kind == "file":
            to = Target("file", str(state_dir / to.address))
        return replace(place, to=to, format=form)

    access = tuple(whole(each, each.format or log.format) for each in log.access if each.to.kind != "off")
    acts = tuple(whole(each, "ecs") for each in log.acts if each.to.kind != "off")
    if not log.acts and access:
        acts = tuple(each for each in access if each.format == "ecs") or (
            Destination(Target("file", str(state_dir / ACTS_FILE)), "ecs"),
        )
    return replace(log, access=access, acts=acts)

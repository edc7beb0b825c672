"""From access lines as the workers write them (ECS JSON) to combined lines, templates and syslog messages.

Owns: how fields look in text. Invariants: what a client sent never ends a line nor leaves its quotes, whatever the
format; a line that cannot be read is handed on as it is, escaped, never dropped.
"""

from __future__ import annotations

import datetime
import functools
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from scrubber.config.log import COMBINED, Destination, Field, parse_template

Line = Mapping[str, Any]
Render = Callable[[bytes], bytes]

FACILITIES = {"user": 1, "daemon": 3, "auth": 4, **{f"local{n}": 16 + n for n in range(8)}}
SEVERITY_LINE = 6  # informational
SEVERITY_ACT = 5  # notice
STAMP = b'{"@timestamp":"'
STAMP_BYTES = 24  # 2026-11-22T16:59:00.123Z
ABSENT = "-"
NO_STATUS = "000"  # of a request that got no answer: readers of the combined format want three digits
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


def renderer(form: str) -> Render | None:
    """What makes a line of that format of an access line; None: it is one already."""
    return None if form == "ecs" else _template(COMBINED if form == "combined" else form)


@functools.lru_cache(maxsize=32)
def _template(text: str) -> Render:
    parts = [part if isinstance(part, str) else _getter(part) for part in parse_template(text)]

    def render(line: bytes) -> bytes:
        try:
            fields = _decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return plain(line.decode("latin-1")).encode()
        return "".join([part if isinstance(part, str) else part(fields) for part in parts]).encode()

    return render


def _getter(field: Field) -> Callable[[Line], str]:
    composed = COMPOSED.get(field.name)
    if field.escape == "json":
        return lambda line: _encode(composed(line) if composed else line.get(field.name)).decode()
    if field.name == "http.response.status_code":
        return lambda line: _shown(line.get(field.name, NO_STATUS))
    return lambda line: _shown(composed(line) if composed else line.get(field.name))


def _shown(value: Any) -> str:
    if value is None or value == "":
        return ABSENT
    if isinstance(value, str):
        return plain(value)
    return ("true" if value else "false") if isinstance(value, bool) else plain(str(value))


_UNSAFE = {code: f"\\x{code:02X}" for code in (*range(0x20), 0x22, 0x5C, *range(0x7F, 0x100))}


def plain(text: str) -> str:
    """Text as nginx and Apache write it: quotes, backslashes, controls and bytes beyond ASCII as \\xHH."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(
        _UNSAFE.get(ord(c)) or (c if ord(c) < 0x100 else "".join(f"\\x{b:02X}" for b in c.encode("utf-8", "replace")))
        for c in text
    )


# ── what is made of several fields ──


def _target(line: Line) -> str | None:
    path, query = line.get("url.path"), line.get("url.query")
    return path if query is None or path is None else f"{path}?{query}"


def _request(line: Line) -> str | None:
    method = line.get("http.request.method")
    return f"{method} {_target(line) or ABSENT} HTTP/{line.get('http.version', '1.1')}" if method else None


def _clf_time(line: Line) -> str:
    return clf_second(str(line.get("@timestamp", ""))[:19])


@functools.lru_cache(maxsize=64)
def clf_second(stamp: str) -> str:
    """ "22/Nov/2026:16:59:00 +0000" of "2026-11-22T16:59:00"; lines of one second share it."""
    try:
        at = datetime.datetime.fromisoformat(stamp)
    except ValueError:
        return ABSENT
    return f"{at:%d}/{MONTHS[at.month - 1]}/{at:%Y:%H:%M:%S} +0000"


def _ms(name: str) -> Callable[[Line], Any]:
    def shown(line: Line) -> float | None:
        ns = line.get(name)
        return round(ns / 1e6, 3) if isinstance(ns, int) else None

    return shown


COMPOSED: dict[str, Callable[[Line], Any]] = {
    "request": _request,
    "target": _target,
    "clf_time": _clf_time,
    "total_ms": _ms("event.duration"),
    "queue_ms": _ms("scrubber.queue_ns"),
    "connect_ms": _ms("scrubber.connect_ns"),
    "origin_ms": _ms("scrubber.origin_ns"),
}


# ── syslog ──


class SyslogMessage:
    """RFC 5424 around lines: `<PRI>1 TIME HOST APP-NAME PROCID MSGID - MSG`."""

    def __init__(self, place: Destination) -> None:
        base = FACILITIES[place.facility] * 8
        host = "".join(c for c in socket.gethostname() if "!" <= c <= "~")[:255] or "-"
        self._pri = {False: base + SEVERITY_LINE, True: base + SEVERITY_ACT}
        self._middle = f" {host} {place.tag} {os.getpid()} "

    def of(self, line: bytes, text: bytes, *, act: bool) -> bytes:
        """`text` as the message of an access line or act, whose time is in `line`."""
        stamp = line[len(STAMP) : len(STAMP) + STAMP_BYTES] if line.startswith(STAMP) else b""
        time = stamp.decode("ascii", "replace") if stamp.endswith(b"Z") else ABSENT
        head = f"<{self._pri[act]}>1 {time}{self._middle}{'act' if act else 'access'} - "
        return head.encode() + text

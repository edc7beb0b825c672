"""Header edits: what an area or a route sets, adds and removes, towards the origin and towards the client.

Owns which fields may be edited and what a value may be. Invariant: an edit that is let through cannot end a field,
frame a message, or claim who the client is.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from scrubber.config.texts import PLACES_MAX, places_in, words_in
from scrubber.config.walk import Doc, OneOrMore, Reads, Report, nearest
from scrubber.errors import ValueRefused

EDITS_MAX = 96  # ext/route_spec.pxd: of area and route together, each field of `add` and `remove` one, of `set` two
NAME_BYTES_MAX = 128
VALUE_BYTES_MAX = 4096
ADDED_BYTES_MAX = 6144  # names and values of one table: head and edits share one buffer of 24 KiB
REQUEST_WORDS = frozenset({"client_ip", "request_id", "host", "area", "scheme"})
RESPONSE_WORDS = frozenset({"client_ip", "request_id", "area", "scheme"})

FRAMING = "the gateway frames every message itself"
HOP = "it belongs to one connection, and the gateway has its own on either side"
WHO = "the gateway says itself who the client is; nobody may claim it in its place"
HOST_HINT = "set keep_host, or the origin's host"
ID_HINT = "the gateway gives every request its id; {request_id} may stand in another field"
_COMMON = {
    "content-length": FRAMING,
    "transfer-encoding": FRAMING,
    "trailer": FRAMING,
    "connection": HOP,
    "keep-alive": HOP,
    "proxy-connection": HOP,
    "te": HOP,
    "upgrade": HOP,
    "x-request-id": ID_HINT,
    "via": "set via, of the gateway or the area",
}
REQUEST_OWNED = _COMMON | {
    "host": HOST_HINT,
    "expect": "the gateway answers it itself",
    "forwarded": WHO,
    "x-forwarded-for": WHO,
    "x-forwarded-host": WHO,
    "x-forwarded-port": WHO,
    "x-forwarded-proto": WHO,
    "x-real-ip": WHO,
    "proxy-authorization": HOP,
}
RESPONSE_OWNED = _COMMON | {
    "date": "it says when the answer was made",
    "proxy-authenticate": HOP,
    "server": 'set server = "hide", or the text to send',
}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x20-\x7e\t]*")


def _parse_name(value: Any) -> str:
    expected = f"a field's name, at most {NAME_BYTES_MAX} characters"
    if not isinstance(value, str) or not _TOKEN.fullmatch(value) or len(value) > NAME_BYTES_MAX:
        raise ValueRefused(f"{value!r} is not a field's name", expected=expected)
    return value


def _parse_value(value: Any) -> str:
    expected = f"printable ASCII in one line, at most {VALUE_BYTES_MAX} characters"
    if not isinstance(value, str):
        raise ValueRefused(f"{value!r} is not text", expected=expected)
    if not _VALUE.fullmatch(value) or len(value) > VALUE_BYTES_MAX:
        raise ValueRefused(f"{value[:40]!r} cannot be the value of a field", expected=expected)
    return value.strip()


NAME = Reads(_parse_name, "X-Hole", "field name")
VALUE = Reads(_parse_value, "", "field value")


class HeaderEdits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In this order: `remove`, then `set` (in place of whatever was there), then `add` (beside it)."""

    set_: Annotated[
        dict[str, Annotated[str, VALUE]],
        Doc("Fields that stand in place of whatever was there.", '{ X-Area = "{area}" }', default="none"),
    ] = msgspec.field(default_factory=dict, name="set")
    add: Annotated[
        dict[str, Annotated[tuple[Annotated[str, VALUE], ...], OneOrMore()]],
        Doc("Fields beside those that are there; a list adds several.", '{ X-Client = "{client_ip}" }', default="none"),
    ] = msgspec.field(default_factory=dict)
    remove: Annotated[
        tuple[Annotated[str, NAME], ...],
        OneOrMore(at_least=0),
        Doc("Fields that do not pass.", '["X-Debug"]'),
    ] = ()

    @property
    def count(self) -> int:
        """How many edits the core makes of them."""
        return 2 * len(self.set_) + sum(len(values) for values in self.add.values()) + len(self.remove)


def check_edits(edits: HeaderEdits | None, report: Report, path: str, *, response: bool) -> None:
    """Every field that may not be edited, every value that cannot be."""
    if edits is None:
        return
    owned, words = (RESPONSE_OWNED, RESPONSE_WORDS) if response else (REQUEST_OWNED, REQUEST_WORDS)
    named: list[tuple[str, str, tuple[str, ...]]] = [("set", name, (value,)) for name, value in edits.set_.items()]
    named += [("add", name, values) for name, values in edits.add.items()]
    removed = [name for i, name in enumerate(edits.remove) if not report.spoiled(f"{path}.remove[{i}]")]
    named += [("remove", name, ()) for name in removed]
    seen: set[tuple[str, str]] = set()
    for key, name, values in named:
        place = f"{path}.{key}" + (f".{name}" if key != "remove" else "")
        _check_name(name, owned, report, place, folded=not response)
        if (key, name.lower()) in seen:
            report.error(place, f"{name!r} stands here twice (letters' case does not count)", "each field once")
        seen.add((key, name.lower()))
        for value in values:
            if places_in(value) > PLACES_MAX:
                report.error(place, "too many placeholders", f"at most {PLACES_MAX}")
            for word in words_in(value):
                if word not in words:
                    report.error(place, f"nothing is known as {{{word}}} here", _known(words), _word_hint(word, words))
    added = sum(len(name) + len(value) + 4 for _, name, values in named for value in values)
    if added > ADDED_BYTES_MAX:
        report.error(path, f"{added} bytes of fields", f"at most {ADDED_BYTES_MAX}")
    if edits.count > EDITS_MAX:
        report.error(path, f"{edits.count} edits (a field that is set counts twice)", f"at most {EDITS_MAX}")


def _check_name(name: str, owned: dict[str, str], report: Report, place: str, *, folded: bool) -> None:
    """folded: who reads it may take `_` for `-`, as origins behind CGI or WSGI do."""
    try:
        _parse_name(name)
    except ValueRefused as e:
        report.error(place, e.message, e.expected)
        return
    read_as = name.lower().replace("_", "-") if folded else name.lower()
    why = owned.get(read_as)
    if why is not None:
        twin = "" if read_as == name.lower() else f" (CGI and WSGI read it as {read_as})"
        report.error(place, f"{name} is the gateway's own{twin}", "another field", why)


def _known(words: frozenset[str]) -> str:
    return "one of: " + ", ".join(f"{{{word}}}" for word in sorted(words))


def _word_hint(word: str, words: frozenset[str]) -> str:
    if word in REQUEST_WORDS:
        return "an answer may come when the request's head is long gone"
    return nearest(word, words)

"""The mandate: the authority's file. Its schema and the small languages in it; docs/mandate.md is the reference.

Owns what a mandate is made of and how its texts (keys, patterns, rungs, conditions) read. What the parts mean together
is checked in scrubber.mandate.check.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from scrubber.config.names import NAME
from scrubber.config.network import PREFIX
from scrubber.config.walk import Derived, OneOrMore, Reads, integer, measured, nearest
from scrubber.errors import ValueRefused
from scrubber.units import (
    NS_PER_S,
    PPM,
    Limit,
    format_duration,
    format_share,
    parse_duration_ns,
    parse_limit,
    parse_share_ppm,
)

Measure = Literal["observe", "throttle", "challenge", "tarpit", "deny", "drop", "block", "blackhole"]
MEASURES: tuple[Measure, ...] = ("observe", "throttle", "challenge", "tarpit", "deny", "drop", "block", "blackhole")
TIMED: tuple[Measure, ...] = ("block", "blackhole")  # these need how long they last

Key = Literal["client", "prefix", "fingerprint", "account", "path", "host", "area", "ja3", "ja4", "http2"]
KEYS: tuple[Key, ...] = ("client", "prefix", "fingerprint", "account", "path", "host", "area", "ja3", "ja4", "http2")
# These say who, the others say where.
SOURCE_KEYS = frozenset({"client", "prefix", "fingerprint", "account", "ja3", "ja4", "http2"})
HELLO_KEYS = frozenset({"client", "prefix", "ja3", "ja4", "area"})  # there before a handshake

Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "other"]

POWERS = "powers."  # how names of clauses begin that are no rule's, but the mandate's powers themselves

RUNGS_MAX = 8
PATTERNS_MAX = 64
PATTERN_BYTES_MAX = 1024

RUNG_EXPECTED = 'a measure, with its time where it has one: "observe 2s", "throttle", "block 10m"'
KEY_EXPECTED = 'a key, or two joined by "+": ' + ", ".join(KEYS)
PATTERN_EXPECTED = 'a pattern as "exact", "prefix*", "*suffix" or "*part*"'
HEADER_EXPECTED = "true (present), false (absent), a pattern or a list of patterns"
FINGERPRINT_EXPECTED = 'a fingerprint as "h1_415aadd4396b87a3"'
HTTP2_EXPECTED = "16 hexadecimal digits"
JA3_EXPECTED = "32 hexadecimal digits"
JA4_EXPECTED = 'a JA4 as "t13d1516h2_8daaf6152771_e5627efa2ab1", or with stars as "t13d*", "*_8daaf6152771_*"'
_JA4_FIRST = re.compile(r"[!-~]{10}|[!-~]{0,10}\*")
_JA4_SUM = re.compile(r"[0-9a-f]{12}|[0-9a-f]{0,11}\*")
LOAD_EXPECTED = 'a load as ">= 80%"'


@dataclass(frozen=True, slots=True)
class Rung:
    """A step of a ladder. `hold_ns`: time before the next (0: the rule's climb). `ttl_ns`: of block, blackhole."""

    measure: Measure
    hold_ns: int = 0
    ttl_ns: int = 0


@dataclass(frozen=True, slots=True)
class Pattern:
    """How a text is compared. Only a star is special, at the beginning or the end; of parts, at the end of each."""

    match: Literal["exact", "prefix", "suffix", "contains", "parts"]
    text: str


@dataclass(frozen=True, slots=True)
class HeaderTest:
    """`patterns` empty: only `present` counts; else one of them must match one of the header's values."""

    present: bool
    patterns: tuple[Pattern, ...] = ()


def parse_rung(value: Any) -> Rung:
    """ "observe 2s" → Rung. ValueRefused."""
    word, _, time = value.strip().partition(" ") if isinstance(value, str) else ("", "", "")
    measure = next((m for m in MEASURES if m == word), None)
    if measure is None:
        raise ValueRefused(f"{value!r} is not a measure", expected=RUNG_EXPECTED, hint=nearest(word, MEASURES))
    if not time:
        if measure in TIMED:
            raise ValueRefused(f"{value!r} has no time", expected=RUNG_EXPECTED, hint=f'for how long? "{measure} 10m"')
        return Rung(measure)
    try:
        time_ns = parse_duration_ns(time)
    except ValueRefused as e:
        raise ValueRefused(f"{value!r}: {e.message}", expected=RUNG_EXPECTED, hint=e.hint) from None
    if time_ns < 1_000_000:
        raise ValueRefused(f"{value!r} lasts no time", expected=RUNG_EXPECTED, hint="at least 1ms")
    return Rung(measure, ttl_ns=time_ns) if measure in TIMED else Rung(measure, hold_ns=time_ns)


def parse_per(value: Any) -> tuple[Key, ...]:
    """ "account+client" → ("account", "client")."""
    words = [w.strip() for w in value.split("+")] if isinstance(value, str) else [str(value)]
    found: list[Key] = []
    for word in words:
        key = next((k for k in KEYS if k == word), None)
        if key is None:
            raise ValueRefused(f"{word!r} is not a key", expected=KEY_EXPECTED, hint=nearest(word, KEYS))
        if key in found:
            raise ValueRefused(f"{value!r} names {word!r} twice", expected=KEY_EXPECTED)
        found.append(key)
    if len(found) > 2:
        raise ValueRefused(f"{value!r} joins more than two keys", expected=KEY_EXPECTED)
    return tuple(found)


def parse_pattern(value: Any) -> Pattern:
    """ "/api/*" → Pattern("prefix", "/api/")."""
    if not isinstance(value, str) or not value:
        raise ValueRefused(f"{value!r} is not a pattern", expected=PATTERN_EXPECTED)
    front, back = value.startswith("*"), value.endswith("*") and len(value) > 1
    text = value[1 if front else 0 : -1 if back else None]
    if not text:
        raise ValueRefused(f"{value!r} matches everything", expected=PATTERN_EXPECTED, hint="leave the condition out")
    if "*" in text:
        raise ValueRefused(f"{value!r} has a star inside", expected=PATTERN_EXPECTED)
    if len(text.encode()) > PATTERN_BYTES_MAX:
        raise ValueRefused("a pattern is too long", expected=f"at most {PATTERN_BYTES_MAX} bytes")
    if front and back:
        return Pattern("contains", text)
    return Pattern("suffix" if front else "prefix" if back else "exact", text)


def _parse_path(value: Any) -> Pattern:
    pattern = parse_pattern(value)
    if pattern.match in ("exact", "prefix") and not pattern.text.startswith("/") and pattern.text != "*":
        raise ValueRefused(f"{value!r} does not begin with a slash", expected='a path as "/login", "/api/*", "*.php"')
    if "?" in pattern.text:
        raise ValueRefused(f"{value!r} has a query", expected='a path as "/login"', hint="query has its own condition")
    return pattern


def _parse_host_pattern(value: Any) -> Pattern:
    pattern = parse_pattern(value)
    return Pattern(pattern.match, pattern.text.lower())


def _parse_header_test(value: Any) -> HeaderTest:
    if isinstance(value, bool):
        return HeaderTest(present=value)
    patterns = value if isinstance(value, list) else [value]
    if not patterns:
        raise ValueRefused("an empty list", expected=HEADER_EXPECTED)
    try:
        return HeaderTest(present=True, patterns=tuple(parse_pattern(p) for p in patterns))
    except ValueRefused as e:
        raise ValueRefused(e.message, expected=HEADER_EXPECTED, hint=e.hint) from None


def _parse_fingerprint(value: Any) -> str:
    found = re.fullmatch(r"h1_([0-9a-fA-F]{16})", value) if isinstance(value, str) else None
    if found is None:
        hint = "as the access log shows it"
        raise ValueRefused(f"{value!r} is not a fingerprint", expected=FINGERPRINT_EXPECTED, hint=hint)
    return found[1].lower()


def _parse_http2(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{16}", value):
        raise ValueRefused(f"{value!r} is not one", expected=HTTP2_EXPECTED, hint="as the access log shows it")
    return value.lower()


def _parse_ja3(value: Any) -> Pattern:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{32}", value):
        raise ValueRefused(f"{value!r} is not a JA3", expected=JA3_EXPECTED, hint="as the access log shows it")
    return Pattern("exact", value.lower())


def _parse_ja4(value: Any) -> Pattern:
    """ "t13d1516h2_8daaf6152771_*" → Pattern("parts", …): a part that ends in a star stands for all that begin so."""
    parts = value.split("_") if isinstance(value, str) else []
    if len(parts) == 1 and parts[0].endswith("*"):
        parts += ["*", "*"]
    shapes = (_JA4_FIRST, _JA4_SUM, _JA4_SUM)
    if len(parts) != len(shapes) or not all(s.fullmatch(p) for s, p in zip(shapes, parts, strict=True)):
        hint = 'a star may end each part: "t13d*", "*_8daaf6152771_*"'
        raise ValueRefused(f"{value!r} is not a JA4", expected=JA4_EXPECTED, hint=hint)
    if all(part == "*" for part in parts):
        raise ValueRefused(f"{value!r} matches everything", expected=JA4_EXPECTED, hint="leave the condition out")
    text = "_".join(parts)
    return Pattern("parts" if "*" in text else "exact", text)


def _parse_load_ppm(value: Any) -> int:
    found = re.fullmatch(r">=\s*(.+)", value) if isinstance(value, str) else None
    if found is None:
        raise ValueRefused(f"{value!r} is not a load", expected=LOAD_EXPECTED)
    return parse_share_ppm(found[1])


def _parse_sha256(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        expected = "64 hexadecimal digits"
        raise ValueRefused(f"{value!r} is not a SHA-256 digest", expected=expected, hint="run: sha256sum FILE")
    return value.lower()


def _parse_text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 500 or not value.isprintable():
        raise ValueRefused(f"{value!r} is not a line of text", expected="one line, 1 to 500 characters")
    return value


def _time(low: str, high: str) -> Reads:
    return measured(parse_duration_ns, format_duration, parse_duration_ns(low), parse_duration_ns(high))


TEXT = Reads(_parse_text, "")
RUNG = Reads(parse_rung, Rung("observe"))
PER = Reads(parse_per, ())
LIMIT = Reads(parse_limit, None)
PATH = Reads(_parse_path, Pattern("exact", ""))
PATTERN = Reads(parse_pattern, Pattern("exact", ""))
HOST_PATTERN = Reads(_parse_host_pattern, Pattern("exact", ""))
HEADER = Reads(_parse_header_test, HeaderTest(True))
FINGERPRINT = Reads(_parse_fingerprint, "")
HTTP2 = Reads(_parse_http2, "")
JA3 = Reads(_parse_ja3, Pattern("exact", ""))
JA4 = Reads(_parse_ja4, Pattern("exact", ""))
LOAD = Reads(_parse_load_ppm, 0)
SHA256 = Reads(_parse_sha256, "")


class NeverBlockFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A list of prefixes, one a line, "#" begins a comment; part of the mandate by its digest."""

    path: str
    sha256: Annotated[str, SHA256]


class Proportion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What no act may exceed."""

    block_ttl_max_ns: Annotated[int, _time("1s", "31d")] = msgspec.field(default=3600 * NS_PER_S, name="block_ttl_max")
    prefix_v4_widest: Annotated[int, integer(8, 32)] = 24
    prefix_v6_widest: Annotated[int, integer(16, 64)] = 48
    blocks_max: Annotated[int, integer(0, 10_000_000)] = 10_000
    clients_share_max_ppm: Annotated[int, measured(parse_share_ppm, format_share, 0, PPM // 2)] = msgspec.field(
        default=PPM // 100, name="clients_share_max"
    )
    blackhole_signatures: Annotated[int, integer(1, 16)] = 2
    never_block: tuple[Annotated[str, PREFIX], ...] = ()
    never_block_files: tuple[NeverBlockFile, ...] = ()


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The condition of a rule: every field that is given must hold; of a list, one."""

    method: Annotated[tuple[Method, ...], OneOrMore()] = ()
    path: Annotated[tuple[Annotated[Pattern, PATH], ...], OneOrMore()] = ()
    host: Annotated[tuple[Annotated[Pattern, HOST_PATTERN], ...], OneOrMore()] = ()
    header: dict[str, Annotated[HeaderTest, HEADER]] = {}
    query: Annotated[tuple[Annotated[Pattern, PATTERN], ...], OneOrMore()] = ()
    client: Annotated[tuple[Annotated[str, PREFIX], ...], OneOrMore()] = ()
    fingerprint: Annotated[tuple[Annotated[str, FINGERPRINT], ...], OneOrMore()] = ()
    http2: Annotated[tuple[Annotated[str, HTTP2], ...], OneOrMore()] = ()
    ja3: Annotated[tuple[Annotated[Pattern, JA3], ...], OneOrMore()] = ()
    ja4: Annotated[tuple[Annotated[Pattern, JA4], ...], OneOrMore()] = ()
    known: bool | None = None
    account: bool | None = None
    rush: bool | None = None
    link_load_ppm: Annotated[int | None, LOAD] = msgspec.field(default=None, name="link_load")

    @property
    def needs_request(self) -> bool:
        """Whether it asks for more than is known with a ClientHello."""
        return msgspec.structs.replace(self, ja3=(), ja4=(), client=(), known=None) != When()


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Condition, key, limit → a ladder of measures. Without a limit, every match counts as over it."""

    name: Annotated[str, NAME]
    then: Annotated[tuple[Annotated[Rung, RUNG], ...], OneOrMore()]
    when: When = When()
    per: Annotated[tuple[Key, ...], PER] = ()
    limit: Annotated[Limit | None, LIMIT] = None
    climb_ns: Annotated[int, _time("10ms", "1h")] = msgspec.field(default=2 * NS_PER_S, name="climb")
    calm_ns: Annotated[int, _time("100ms", "1d")] = msgspec.field(default=10 * NS_PER_S, name="calm")
    newcomer_share_ppm: Annotated[int, measured(parse_share_ppm, format_share, 0, PPM)] = msgspec.field(
        default=PPM // 2, name="newcomer_share"
    )

    @property
    def names_source(self) -> bool:
        """Whether the key says who (then measures can be aimed), not only where."""
        return any(key in SOURCE_KEYS for key in self.per)


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who empowers whom to do what, where and for how long."""

    id: Annotated[str, NAME]
    serial: Annotated[int, integer(1, 2**53)]
    authority: Annotated[str, TEXT]
    basis: Annotated[str, TEXT]
    not_before: datetime.datetime
    expires: datetime.datetime
    on_expiry: Literal["observe", "limits"]
    areas: Annotated[tuple[str, ...], OneOrMore()]
    powers: Annotated[tuple[Measure, ...], OneOrMore()]


class Mandate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One mandate. Derived: `file` (absolute path), `never_block` (all its prefixes, files included) and `digest` (of
    what the file says: scrubber.mandate.serials)."""

    head: Head = msgspec.field(name="mandate")
    proportion: Proportion = Proportion()
    rules: tuple[Rule, ...] = msgspec.field(default=(), name="rule")
    file: Annotated[str, Derived()] = ""
    never_block: Annotated[tuple[str, ...], Derived()] = ()
    digest: Annotated[str, Derived()] = ""

    @property
    def id(self) -> str:
        """The mandate's id."""
        return self.head.id

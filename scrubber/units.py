"""Text with units ⇄ numbers: durations, sizes, shares, byte rates, limits.

Owns every unit that a file, a flag or an answer shows. What `format_*` writes, `parse_*` reads back to the same number.
Durations are nanoseconds, sizes bytes, shares parts per million. Refusals are `ValueRefused`, never a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from scrubber.errors import ValueRefused

NS_PER_S = 1_000_000_000
PPM = 1_000_000

_DURATION_NS: dict[str, int] = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "min": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
    "d": 86400 * NS_PER_S,
}
_SIZE_BYTES: dict[str, int] = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
DURATION_NS_MAX = 3660 * _DURATION_NS["d"]
SIZE_BYTES_MAX = 2**50
COUNT_MAX = 2**40
REFILL_NS_MAX = 31 * _DURATION_NS["d"]  # longer, and an empty limiter would hardly ever fill again

DURATION_EXPECTED = 'a duration as "250ms", "10s", "5m", "6h", "1d"'
SIZE_EXPECTED = 'a size as "16KiB", "64MiB", "10MB"'
SHARE_EXPECTED = 'a share as "2%" or "0.5%"'
BYTE_RATE_EXPECTED = 'a rate as "500B/s" or "16KiB/s"'
LIMIT_EXPECTED = (
    'a limit as "5/min burst 10", "10MB/min", "20 connections/s", "8 concurrent" or "2 origin_s/min" (each but '
    '"concurrent" may end in "burst N")'
)

_NUMBER = r"\d+(?:\.\d+)?"
_DURATION = re.compile(rf"({_NUMBER})\s*([a-zµ]+)\s*")
_AMOUNT = re.compile(rf"({_NUMBER})\s*([A-Za-z_]*)")
_PERIOD = re.compile(r"(\d*)\s*([a-z]+)")

LimitUnit = Literal["requests", "bytes", "connections", "concurrent", "origin_s", "handshakes", "abuses"]


@dataclass(frozen=True, slots=True)
class Limit:
    """`count` units every `period_ns`, `burst` at once. origin_s is counted in ns. Concurrent: burst is the number."""

    unit: LimitUnit
    count: int
    period_ns: int
    burst: int


def _decimal(number: int, places: int) -> str:
    """`number` shifted by `places` decimals, exactly, without trailing zeros."""
    whole, rest = divmod(number, 10**places)
    return f"{whole}.{rest:0{places}d}".rstrip("0") if rest else str(whole)


def _whole(number: Fraction, text: str, expected: str) -> int:
    if number.denominator != 1:
        raise ValueRefused(f"{text!r} is not a whole number of the smallest unit", expected=expected)
    return number.numerator


def _text(value: object, expected: str) -> str:
    if not isinstance(value, str):
        raise ValueRefused(
            f"{value!r} has no unit" if isinstance(value, (int, float)) else f"{value!r} is not text",
            expected=expected,
            hint="a value with a unit is written in quotes",
        )
    return value.strip()


def parse_duration_ns(value: object) -> int:
    """Nanoseconds of "250ms", "10s", "5m" (or "5min"), "6h", "1d", or several in a row ("1h30m")."""
    text = _text(value, DURATION_EXPECTED)
    total, at = Fraction(0), 0
    while at < len(text):
        found = _DURATION.match(text, at)
        unit_ns = _DURATION_NS.get(found[2]) if found else None
        if found is None or unit_ns is None:
            hint = f'write "{text}s" for seconds' if text.isdigit() else "units: ms, s, m, h, d"
            raise ValueRefused(f"{text!r} is not a duration", expected=DURATION_EXPECTED, hint=hint)
        total += Fraction(found[1]) * unit_ns
        at = found.end()
    if not text:
        raise ValueRefused("an empty text is not a duration", expected=DURATION_EXPECTED)
    if total > DURATION_NS_MAX:
        raise ValueRefused(f"{text!r} is longer than ten years", expected=DURATION_EXPECTED)
    return _whole(total, text, DURATION_EXPECTED)


def format_duration(ns: int) -> str:
    """The shortest text of one unit that is exactly `ns`: "10m", "1500ms"."""
    for unit in ("d", "h", "m", "s", "ms", "us"):
        if ns and ns % _DURATION_NS[unit] == 0:
            return f"{ns // _DURATION_NS[unit]}{unit}"
    return f"{ns}ns" if ns else "0s"


def parse_bytes(value: object) -> int:
    """Bytes of "500B", "16KiB", "64MiB", "10MB"."""
    text = _text(value, SIZE_EXPECTED)
    found = _AMOUNT.fullmatch(text)
    factor = _SIZE_BYTES.get(found[2]) if found else None
    if found is None or factor is None:
        many = "units: B, kB, MB, GB (of 1000), KiB, MiB, GiB (of 1024)"
        hint = f'write "{text}B" for bytes' if text.isdigit() else many
        raise ValueRefused(f"{text!r} is not a size", expected=SIZE_EXPECTED, hint=hint)
    total = Fraction(found[1]) * factor
    if total > SIZE_BYTES_MAX:
        raise ValueRefused(f"{text!r} is more than a pebibyte", expected=SIZE_EXPECTED)
    return _whole(total, text, SIZE_EXPECTED)


def format_bytes(count: int) -> str:
    """The shortest exact text: powers of 1024 first, then of 1000."""
    for unit in ("TiB", "GiB", "MiB", "KiB", "TB", "GB", "MB", "kB"):
        if count and count % _SIZE_BYTES[unit] == 0:
            return f"{count // _SIZE_BYTES[unit]}{unit}"
    return f"{count}B"


def parse_share_ppm(value: object) -> int:
    """Parts per million of "2%"."""
    text = _text(value, SHARE_EXPECTED)
    found = re.fullmatch(rf"({_NUMBER})\s*%", text)
    if found is None:
        raise ValueRefused(f"{text!r} is not a share", expected=SHARE_EXPECTED, hint="a share ends in %")
    ppm = Fraction(found[1]) * PPM / 100
    if ppm > PPM:
        raise ValueRefused(f"{text!r} is more than all", expected=SHARE_EXPECTED)
    return _whole(ppm, text, SHARE_EXPECTED)


def format_share(ppm: int) -> str:
    """The exact text of a share: "2%", "0.05%"."""
    return f"{_decimal(ppm, 4)}%"


def parse_bytes_per_s(value: object) -> int:
    """Bytes a second of "500B/s" or "16KiB/s"."""
    text = _text(value, BYTE_RATE_EXPECTED)
    size, slash, period = text.partition("/")
    if not slash or period.strip() != "s":
        raise ValueRefused(
            f"{text!r} is not a rate in bytes a second", expected=BYTE_RATE_EXPECTED, hint='end it in "/s"'
        )
    try:
        return parse_bytes(size)
    except ValueRefused as e:
        raise ValueRefused(f"{text!r}: {e.message}", expected=BYTE_RATE_EXPECTED, hint=e.hint) from None


def format_bytes_per_s(count: int) -> str:
    """The inverse of `parse_bytes_per_s`."""
    return f"{format_bytes(count)}/s"


_WORDS: dict[str, tuple[LimitUnit, int]] = {
    "": ("requests", 1),
    "request": ("requests", 1),
    "requests": ("requests", 1),
    "connection": ("connections", 1),
    "connections": ("connections", 1),
    "handshake": ("handshakes", 1),
    "handshakes": ("handshakes", 1),
    "abuse": ("abuses", 1),
    "abuses": ("abuses", 1),
    "origin_s": ("origin_s", NS_PER_S),
    "origin_ms": ("origin_s", 1_000_000),
}


def _amount(text: str, whole: str) -> tuple[LimitUnit, int, bool]:
    """(unit, amount in the unit's smallest, whether a unit was named)."""
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise ValueRefused(f"{whole!r} is not a limit", expected=LIMIT_EXPECTED)
    word = found[2]
    unit, factor = _WORDS.get(word) or ("bytes", _SIZE_BYTES.get(word, 0))
    if not factor:
        raise ValueRefused(
            f"{whole!r}: unknown unit {word!r}",
            expected=LIMIT_EXPECTED,
            hint="units: requests (or none), connections, handshakes, abuses, concurrent, origin_s, "
            "B, kB, MB, KiB, MiB, GiB",
        )
    total = Fraction(found[1]) * factor
    if total.denominator != 1:
        raise ValueRefused(
            f"{whole!r} is not a whole number", expected=LIMIT_EXPECTED, hint='write "1/2s" instead of "0.5/s"'
        )
    return unit, total.numerator, word != ""


def _period_ns(text: str, whole: str) -> int:
    found = _PERIOD.fullmatch(text.strip())
    unit_ns = _DURATION_NS.get(found[2]) if found else None
    if found is None or unit_ns is None or found[1] == "0":
        raise ValueRefused(
            f"{whole!r}: {text.strip()!r} is not a period", expected=LIMIT_EXPECTED, hint="periods: s, 10s, min, h, d"
        )
    return int(found[1] or 1) * unit_ns


def parse_limit(value: object) -> Limit:
    """A limit of a rule. Without "burst" the burst is what one period allows."""
    text = _text(value, LIMIT_EXPECTED)
    concurrent = re.fullmatch(r"(\d+)\s*concurrent", text)
    if concurrent is not None:
        number = int(concurrent[1])
        if not 1 <= number <= 2**31:
            raise ValueRefused(f"{text!r} admits nobody", expected=LIMIT_EXPECTED, hint="from 1 upwards")
        return Limit("concurrent", number, NS_PER_S, number)
    rate, _, burst_text = text.partition(" burst ")
    amount, slash, period = rate.partition("/")
    if not slash:
        raise ValueRefused(
            f"{text!r} is not a limit", expected=LIMIT_EXPECTED, hint=f'over what time? write "{text}/s"'
        )
    unit, count, _ = _amount(amount, text)
    period_ns = _period_ns(period, text)
    burst = count
    if burst_text:
        burst_unit, burst, named = _amount(burst_text, text)
        if not named and unit == "origin_s":
            burst *= NS_PER_S
        elif not named and unit == "bytes":
            raise ValueRefused(f"{text!r}: the burst has no unit", expected=LIMIT_EXPECTED, hint=f'write "{burst}MB"')
        elif named and burst_unit != unit:
            raise ValueRefused(f"{text!r}: the burst is in {burst_unit}, the limit in {unit}", expected=LIMIT_EXPECTED)
    if not 1 <= count <= SIZE_BYTES_MAX or not 1 <= burst <= SIZE_BYTES_MAX:
        raise ValueRefused(f"{text!r} is out of range", expected=LIMIT_EXPECTED, hint="count and burst are at least 1")
    if burst * period_ns // count > REFILL_NS_MAX:
        raise ValueRefused(f"{text!r}: an emptied burst would take over 31 days to refill", expected=LIMIT_EXPECTED)
    return Limit(unit, count, period_ns, burst)


def _format_amount(unit: LimitUnit, count: int) -> str:
    if unit == "bytes":
        return format_bytes(count)
    if unit == "origin_s":
        return f"{count // NS_PER_S} origin_s" if count % NS_PER_S == 0 else f"{_decimal(count, 6)} origin_ms"
    return f"{count}" if unit == "requests" else f"{count} {unit}"


def format_limit(limit: Limit) -> str:
    """The inverse of `parse_limit`; the burst is left out where it is one period's worth."""
    if limit.unit == "concurrent":
        return f"{limit.burst} concurrent"
    period = format_duration(limit.period_ns)
    period = {"1s": "s", "1m": "min", "1h": "h", "1d": "d"}.get(period, period)
    rate = f"{_format_amount(limit.unit, limit.count)}/{period}"
    return rate if limit.burst == limit.count else f"{rate} burst {_format_amount(limit.unit, limit.burst)}"

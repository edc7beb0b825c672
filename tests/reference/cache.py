"""What RFC 9111 says of storing and freshness, slowly and plainly, over lists of (name, value): the core's decisions
(ext/cache_policy.pyx) are compared with it."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Sequence
from dataclasses import dataclass

Fields = Sequence[tuple[str, str]]

SECONDS_MAX = 2**31 - 1
HEURISTIC = {200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501}


@dataclass(frozen=True)
class Spec:
    object_bytes_max: int = 1 << 20
    ttl_max_s: int = 0
    ttl_default_s: int = 0
    stale_max_s: int = 0
    honour: bool = False

    def words(self, honour_flag: int) -> tuple[int, int, int, int, int]:
        second = 10**9
        times = (self.ttl_max_s * second, self.ttl_default_s * second, self.stale_max_s * second)
        return (honour_flag * self.honour, self.object_bytes_max, *times)


def values(fields: Fields, name: str) -> list[str]:
    return [value for each, value in fields if each.lower() == name]


def directives(fields: Fields) -> list[tuple[str, str | None]]:
    """Of all Cache-Control fields: (name, value or None)."""
    found: list[tuple[str, str | None]] = []
    name_of = r"[!#$%&'*+.^_`|~0-9A-Za-z-]*"
    for value in values(fields, "cache-control"):
        at = 0
        while True:
            while at < len(value) and value[at] in " \t,":
                at += 1
            if at >= len(value):
                break
            name = re.compile(name_of).match(value, at)
            assert name is not None
            at = name.end()
            given: str | None = None
            if value[at : at + 1] == "=":
                at += 1
                if value[at : at + 1] == '"':
                    quoted = re.compile(r'"((?:\\.|[^"\\]|\\$)*)').match(value, at)
                    assert quoted is not None
                    given, at = quoted[1], quoted.end()
                else:
                    plain = re.compile(r"[^, \t]*").match(value, at)
                    assert plain is not None
                    given, at = plain[0], plain.end()
            end = value.find(",", at)
            at = len(value) if end < 0 else end
            found.append((name[0].lower(), given))
    return found


def seconds(value: str | None) -> int:
    return min(int(value), SECONDS_MAX) if value and value.isascii() and value.isdigit() else 0


def date(value: str) -> int | None:
    """IMF-fixdate only: the other forms have tests of their own."""
    if not re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", value):
        return None
    try:
        return int(email.utils.parsedate_to_datetime(value).timestamp())
    except ValueError:
        return None


def only_date(fields: Fields, name: str) -> int | None:
    found = values(fields, name)
    return date(found[0]) if len(found) == 1 else None


def age_value(fields: Fields) -> int:
    found = values(fields, "age")
    digits = re.match(r"\d*", found[0]) if found else None
    return seconds(digits[0]) if digits else 0


def initial_age(fields: Fields, asked_s: int, got_s: int) -> int:
    """RFC 9111 4.2.3, in seconds."""
    found = values(fields, "date")
    stated = date(found[0]) if found else None
    apparent = min(max(0, got_s - (got_s if stated is None else stated)), SECONDS_MAX)
    return max(apparent, age_value(fields) + max(0, got_s - asked_s))


def lifetime(fields: Fields, status: int, spec: Spec, asked_s: int, got_s: int) -> float:
    """RFC 9111 4.2.1; before ttl_max."""
    said = directives(fields)
    for name in ("s-maxage", "max-age"):
        given = [seconds(value) for each, value in said if each == name]
        if given:
            return min(given)
    found = values(fields, "date")
    stated = date(found[0]) if found else None
    born = got_s if stated is None else stated
    if values(fields, "expires"):
        expires = only_date(fields, "expires")
        return 0 if expires is None else min(max(0, expires - born), SECONDS_MAX)
    public = any(name == "public" for name, _ in said)
    if not spec.ttl_default_s or not (status in HEURISTIC or public):
        return 0
    modified = only_date(fields, "last-modified")
    micro: float = spec.ttl_default_s
    if modified is not None and modified < born and born - modified < SECONDS_MAX:
        micro = min(micro, max(1, (born - modified) / 10))
    return initial_age(fields, asked_s, got_s) + micro


def vary(fields: Fields) -> str | None:
    """Names that the answer varies by; None: cannot be kept."""
    names: list[str] = []
    for value in values(fields, "vary"):
        for element in value.split(","):
            name = element.strip(" \t").lower()
            if not name:
                continue
            if name.startswith("*") or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", name):
                return None
            if name not in names:
                names.append(name)
    joined = ",".join(names)
    return joined if len(joined) < 256 else None


def credentials(request: Fields, account: str = "") -> bool:
    """Whether a request says whose it is; `account`: the field that the area reads accounts from."""
    return any(name.lower() in {"authorization", "cookie", account.lower() or "cookie"} for name, _ in request)


def storable(
    fields: Fields, status: int, spec: Spec, *, with_credentials: bool = False, asked_s: int = 0, got_s: int = 0
) -> bool:
    """Whether the answer to a plain GET may be kept; its length fits."""
    said = directives(fields)
    names = {name for name, _ in said}
    understood = status in HEURISTIC or status in (302, 307)
    if status < 200 or status in (206, 304, 412, 416, 417):
        return False
    if "must-understand" in names and not understood:
        return False
    if "no-store" in names and "must-understand" not in names:
        return False
    if names & {"private", "no-cache"}:
        return False
    if values(fields, "set-cookie") or values(fields, "set-cookie2") or values(fields, "content-range"):
        return False
    if vary(fields) is None:
        return False
    if with_credentials and "public" not in names:
        return False
    fresh_s = lifetime(fields, status, spec, asked_s, got_s)
    born = max(initial_age(fields, got_s, got_s), age_value(fields))
    return fresh_s > born


def freshness(
    fields: Fields, status: int, spec: Spec, request: Fields, *, resident_s: int, calm: bool, got_s: int
) -> str:
    """fresh, allowed (stale, but may be given), stale, never; for an answer without delay."""
    said = {name for name, _ in directives(fields)}
    asked = directives(request)
    age = initial_age(fields, got_s, got_s) + resident_s
    fresh_s = lifetime(fields, status, spec, got_s, got_s)
    if spec.ttl_max_s:
        fresh_s = min(fresh_s, initial_age(fields, got_s, got_s) + spec.ttl_max_s)
    if spec.honour:
        if any(name == "no-cache" for name, _ in asked):
            return "stale"
        limits = [seconds(value) for name, value in asked if name == "max-age"]
        if limits and min(limits) < SECONDS_MAX and age > min(limits):
            return "stale"
    wanted = max([seconds(value) for name, value in asked if name == "min-fresh"], default=0) if spec.honour else 0
    if age < fresh_s and fresh_s - age >= wanted:
        return "fresh"
    if said & {"must-revalidate", "proxy-revalidate"}:
        return "never"
    allowed = max([seconds(v) for n, v in directives(fields) if n == "stale-while-revalidate"][-1:], default=0)
    if "s-maxage" not in said:
        if not calm:
            allowed = max(allowed, spec.stale_max_s)
        last = [SECONDS_MAX if value is None else seconds(value) for name, value in asked if name == "max-stale"][-1:]
        allowed = max([allowed, *last])
    return "allowed" if max(0, age - fresh_s) < allowed else "stale"

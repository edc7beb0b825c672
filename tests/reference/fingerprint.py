"""The HTTP/1.1 header-order fingerprint, as docs/fingerprints.md defines it."""

from __future__ import annotations

from tests.reference.siphash import siphash

PASSING = {
    "authorization", "cache-control", "content-encoding", "content-language", "content-length", "content-type",
    "cookie",
    "dnt", "expect", "forwarded", "keep-alive", "origin", "pragma", "priority", "proxy-authorization",
    "proxy-connection",
    "purpose", "range", "referer", "save-data", "sec-gpc", "sec-purpose", "te", "trailer", "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests", "via",
}  # fmt: skip
PASSING_PREFIXES = ("access-control-", "if-", "sec-ch-", "sec-fetch-", "sec-websocket-", "x-")
ALWAYS_SENT = {"sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform"}
TEXT_BYTES_MAX = 2048


def counts(name: str, options: set[str]) -> bool:
    if name == "connection":
        return True
    if name in options or name in PASSING:
        return False
    return name in ALWAYS_SENT or not name.startswith(PASSING_PREFIXES)


def fingerprint(minor: int, headers: list[tuple[str, str]]) -> str:
    """Text form of the fingerprint of (name, value) headers in order."""
    options = {
        option.strip(" \t").lower()
        for name, value in headers
        if name.lower() == "connection"
        for option in value.split(",")
    }
    names = [name.lower() for name, _ in headers]
    text = "".join(f"{line}\n" for line in [str(minor), *(name for name in names if counts(name, options))])
    value = siphash(0, 0, text.encode("ascii")[:TEXT_BYTES_MAX], compress=1, finish=3)
    return f"h1_{value or 1:016x}"

"""When two answers are the same: byte for byte, but for what the gateway owns. The lists below are the whole of that.

Owns: which headers the gateway adds, removes or writes anew, in both directions. Invariant: a header that differs and
is not listed fails a test, and so does a listed one that never differs (test_owned.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

Headers = list[tuple[str, str]]

# Towards the origin: who the client is, and what is said hop by hop (RFC 9110 7.6.1).
REQUEST_ADDED = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via", "x-request-id"}
REQUEST_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "proxy-authorization"}
# What only a trusted proxy could know, and says in X-Forwarded-For and Forwarded.
REQUEST_CLAIMS = {"x-real-ip", "x-forwarded-port"}
# Towards the client: the id under which the request is logged; the connection and the framing are the gateway's own.
RESPONSE_ADDED = {"x-request-id"}
RESPONSE_HOP = {"connection", "keep-alive", "transfer-encoding", "trailer", "proxy-authenticate"}
# Kept, but written last.
RESPONSE_MOVED = {"server", "content-length"}
# Behind a cache, of an answer that was kept: how old it is, and its length, which is known then.
RESPONSE_KEPT = frozenset({"age", "content-length"})
# Differs between any two answers; added where the origin sends none.
MOVING = {"date"}


@dataclass
class Call:
    """One request of the battery. `skip`: what a client must be able to do ("chunked", "upload", …)."""

    name: str
    path: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    chunked: bool = False
    files: dict[str, tuple[str, bytes]] | None = None
    follow: bool = False


@dataclass
class Result:
    """What a client says it got."""

    status: int
    headers: Headers
    body: bytes
    path: str = ""  # of the last request, where redirects were followed
    hops: list[tuple[int, str]] = field(default_factory=list)  # status and Location of each redirect followed
    interim: list[tuple[int, str]] = field(default_factory=list)  # status and Link, where the client shows them

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each.lower() == name]


def values(headers: Headers, port: int) -> dict[str, list[str]]:
    """By name, in order; the address asked is taken out, as Host and Location speak of it."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value.replace(f":{port}", ":PORT"))
    return found


def differing(straight: Headers, through: Headers, ports: tuple[int, int]) -> set[str]:
    """Names whose values are not the same."""
    a, b = values(straight, ports[0]), values(through, ports[1])
    return {name for name in a.keys() | b.keys() if name not in MOVING and a.get(name) != b.get(name)}


def order(headers: Headers, without: set[str]) -> list[str]:
    return [name.lower() for name, _ in headers if name.lower() not in without]


def check_response(
    straight: Result, through: Result, ports: tuple[int, int], what: str, more: frozenset[str] = frozenset()
) -> None:
    """`more`: names that may differ as well."""
    assert through.status == straight.status, (what, straight, through)
    if straight.body[:11] == b'{"method": ' or straight.body[:10] == b'{"method":':
        check_echo(json.loads(straight.body), json.loads(through.body), ports, what)
    else:
        assert through.body == straight.body, (what, len(straight.body), len(through.body), through.body[:300])
    found = differing(straight.headers, through.headers, ports)
    if straight.body[:9] == b'{"method"':
        found -= {"content-length", "etag"}  # of a body that names what the gateway added
    assert found <= RESPONSE_ADDED | RESPONSE_HOP | more, (what, straight.headers, through.headers)
    for name in RESPONSE_ADDED:
        assert len(through.all(name)) == 1, (what, name, through.headers)
    # Among themselves all other headers stay in their order.
    owned = RESPONSE_ADDED | RESPONSE_HOP | RESPONSE_MOVED | more
    assert order(through.headers, owned) == order(straight.headers, owned), (what, straight.headers, through.headers)
    assert through.interim == straight.interim, (what, straight.interim, through.interim)
    assert [(s, at.replace(f":{ports[1]}", ":PORT")) for s, at in through.hops] == [
        (s, at.replace(f":{ports[0]}", ":PORT")) for s, at in straight.hops
    ], (what, straight.hops, through.hops)
    assert through.path == straight.path, what


def check_echo(straight: dict[str, object], through: dict[str, object], ports: tuple[int, int], what: str) -> None:
    """What the origin was sent, straight and through the gateway."""
    for key in ("method", "target", "body_bytes", "body_sha256"):
        assert through[key] == straight[key], (what, key, straight, through)
    a, b = pairs(straight["headers"]), pairs(through["headers"])
    found = differing(a, b, ports)
    assert found >= REQUEST_ADDED, (what, "not added", REQUEST_ADDED - found)
    assert found <= REQUEST_ADDED | REQUEST_HOP, (what, found - REQUEST_ADDED - REQUEST_HOP, a, b)
    assert not {name for name, _ in b} & REQUEST_HOP, (what, b)


def pairs(found: object) -> Headers:
    assert isinstance(found, list)
    return [(str(name), str(value)) for name, value in found]


def check_all(
    straight: Sequence[Result],
    through: Sequence[Result],
    calls: Sequence[Call],
    ports: tuple[int, int],
    more: frozenset[str] = frozenset(),
) -> None:
    assert len(straight) == len(through) == len(calls) > 0
    for call, a, b in zip(calls, straight, through, strict=True):
        check_response(a, b, ports, call.name, more)

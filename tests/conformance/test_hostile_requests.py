"""What has to be refused, sent through a running gateway: the right status and a close, nothing of it at the origin,
and nothing of what follows it, however its bytes come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from scrubber import _native
from tests.conformance.through import Seen, multiplied, send_all, source, unsound
from tests.e2e.proxy import Proxy
from tests.e2e.wire import fetch
from tests.reference import refused
from tests.reference.refused import Refused

CASES = refused.requests()
GOOD = b"GET /good HTTP/1.1\r\nHost: site.test\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: site.test\r\n\r\n"
WAIT_S = 20.0  # for a close that has to come

# One of each kind, for which each place to cut is tried on a connection of its own.
CUT_EVERYWHERE = [
    "length and chunked", "lengths differ", "length signed", "gzip, chunked", "LF LF", "CR in a value", "CR CR LF",
    "space before colon", "obs-fold", "empty name", "0x00 in a value", "0x0c in a name", "0xff in a target", "no Host",
    "other host", "absolute, another host", "asterisk with GET", "authority form", "HTTP/0.9", "HTTP/1.2",
    "chunk b'+5\\r\\nhello\\r\\n'", "chunk b'5;a=\\r\\n'", "trailer b'Host: b\\r\\n'",
]  # fmt: skip


@pytest.fixture(scope="module")
def found(proxy: type[Proxy]) -> Iterator[Proxy]:
    with proxy() as running:
        running.origin.received = {}
        yield running
        running.whole()


def wrong(cases: Sequence[tuple[str, Refused]], seen: Sequence[Seen], before: tuple[int, ...] = ()) -> list[str]:
    """The cases that were not refused as they have to be."""
    return [
        f"{name}: {one}"
        for (name, case), one in zip(cases, seen, strict=True)
        if one != Seen((*before, _native.HTTP1_STATUS[case.reason]), closed=True)
    ]


def forwarded(found: Proxy, may_begin: set[str]) -> list[str]:
    """What is at the origin and should not be: `may_begin` are the clients whose body alone is wrong."""
    problems = [f"not a request: {data[-300:]!r}" for data in found.origin.malformed]
    for request in found.origin.requests:
        client = request.all("x-forwarded-for")[-1]
        begun = client in may_begin and request.method == "POST" and not request.complete
        if request.target != "/good" and not begun:
            problems.append(f"of {client}: {request.head!r}")
    return problems


def beginners(cases: Sequence[tuple[str, Refused]]) -> set[str]:
    return {source(i) for i, (_, case) in enumerate(cases) if case.body}


def started_anew(found: Proxy) -> None:
    found.whole()
    found.origin.requests.clear()
    found.origin.malformed.clear()
    found.origin.close_connections()
    found.origin.received = {}


@pytest.mark.parametrize("how", ["at once", "behind a good one", "byte by byte"])
def test_each_is_refused_and_ends_its_connection(found: Proxy, how: str) -> None:
    started_anew(found)
    cases = list(CASES.items())
    before = GOOD if how == "behind a good one" else b""
    payloads = [before + case.data + SMUGGLED for _, case in cases]

    def cut(payload: bytes) -> list[bytes]:
        step = len(payload) if how != "byte by byte" else 1 if len(payload) < 500 else 97
        return [payload[at : at + step] for at in range(0, len(payload), step)]

    seen = asyncio.run(send_all(found.port, payloads, cut, wait_s=WAIT_S))
    assert fetch(found.port, "/good").status == 200
    assert not wrong(cases, seen, (200,) if before else ())
    assert not forwarded(found, beginners(cases))
    assert len(found.origin.of("/good")) == 1 + bool(before) * len(cases)
    assert not unsound(found.origin)
    assert not multiplied(found.origin, payloads)


def test_wherever_it_is_cut(found: Proxy) -> None:
    started_anew(found)
    cases, cuts = [], []
    for name in CUT_EVERYWHERE:
        for at in range(1, len(CASES[name].data)):
            cases.append((name, CASES[name]))
            cuts.append(at)
    payloads = [case.data + SMUGGLED for _, case in cases]
    places = iter(cuts)

    def cut(payload: bytes) -> list[bytes]:
        at = next(places)
        return [payload[:at], payload[at:]]

    seen = asyncio.run(send_all(found.port, payloads, cut, wait_s=WAIT_S))
    assert fetch(found.port, "/good").status == 200
    assert not wrong(cases, seen)
    assert not forwarded(found, beginners(cases))
    assert not unsound(found.origin)

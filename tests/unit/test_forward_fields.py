"""Fields that go through: each as `Name: value`, in order, whatever white space it came with, whatever is beside it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.unit.hosted import Bench, TinyOrigin, bench, origin

__all__ = ["bench", "origin"]

OURS = {
    b"host",
    b"forwarded",
    b"via",
    b"server",
    b"date",
    b"content-length",
    b"connection",
    b"keep-alive",
    b"transfer-encoding",
}
SPACES = (b" ", b" ", b" ", b"", b"\t", b"  ", b" \t")
ENDS = (b"", b"", b"", b" ", b"\t", b" \t ")
GONE = ((b"Connection", b"x-hop"), (b"X-Hop", b"1"), (b"Keep-Alive", b"timeout=5"), (b"X-Real-IP", b"192.0.2.9"))


def fields(rng: random.Random, *, gone: tuple[tuple[bytes, bytes], ...]) -> list[tuple[bytes, bytes]]:
    names = [b"Accept", b"x-a", b"X-B-Long-Name-Of-More-Than-Sixteen", b"Z", b"Cookie", b"If-Match", b"sec-fetch-mode"]
    values = [b"", b"1", b"a b", b"text/html,*/*;q=0.8", b"\xff\xfe", b"x" * 300, b'"q", W/"r"']
    found = [(rng.choice(names), rng.choice(values)) for _ in range(rng.randint(0, 12))]
    for each in gone:
        if rng.random() < 0.5:
            found.insert(rng.randint(0, len(found)), each)
    return found


def spelled(rng: random.Random, found: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(name + b":" + rng.choice(SPACES) + value + rng.choice(ENDS) + b"\r\n" for name, value in found)


def passed(found: list[tuple[bytes, bytes]]) -> list[bytes]:
    hop = any(name == b"Connection" for name, _ in found)
    away = {b"connection", b"keep-alive", b"x-real-ip"} | ({b"x-hop"} if hop else set())
    return [name + b": " + value for name, value in found if name.lower() not in away]


def theirs(head: bytes) -> list[bytes]:
    """The field lines of a head that are not the gateway's own."""
    lines = head.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return [
        line
        for line in lines
        if (name := line.split(b":")[0].lower()) not in OURS and not name.startswith((b"x-forwarded", b"x-request-id"))
    ]


@pytest.mark.parametrize("seed", range(8))
def test_of_requests(bench: Callable[..., Bench], origin: TinyOrigin, seed: int) -> None:
    rng, running = random.Random(seed), bench()
    for _ in range(25):
        sent = fields(rng, gone=GONE)
        place = rng.randint(0, len(sent))
        lines = spelled(rng, sent[:place]) + b"Host: site.test\r\n" + spelled(rng, sent[place:])
        with running.connect() as sock:
            sock.sendall(b"GET /a HTTP/1.1\r\n" + lines + b"\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200"), lines
        assert theirs(origin.requests[-1]) == passed(sent), lines


@pytest.mark.parametrize("seed", range(8))
def test_of_answers(bench: Callable[..., Bench], origin: TinyOrigin, seed: int) -> None:
    rng, running = random.Random(seed), bench()
    for _ in range(25):
        sent = fields(rng, gone=GONE[:3])
        sent = [each for each in sent if each[0] != b"Cookie"]
        place = rng.randint(0, len(sent))
        lines = spelled(rng, sent[:place]) + b"Content-Length: 2\r\n" + spelled(rng, sent[place:])
        origin.respond = lambda head, lines=lines: b"HTTP/1.1 200 OK\r\n" + lines + b"\r\nok"
        with running.connect() as sock:
            sock.sendall(b"GET /a HTTP/1.1\r\nHost: site.test\r\n\r\n")
            answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), lines
        assert theirs(answer) == passed(sent), lines

"""The ClientHello parser: what it reads, what it refuses, and JA3 and JA4 against a slow reference."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from scrubber._native import probe_hello
from tests.reference.clienthello import (
    GREASE,
    Hello,
    alpn,
    groups,
    ja3,
    ja4,
    point_formats,
    server_name,
    signatures,
    vector,
    versions,
    words,
)

SEED = 20261130
BROWSER = Hello(
    ciphers=[0x4A4A, 0x1301, 0x1303, 0xC02B, 0xC02F],
    extensions=[
        (0x1A1A, b""),
        server_name(b"example.org"),
        groups(0x2A2A, 0x11EC, 29, 23),
        point_formats(0),
        signatures(0x0403, 0x0804),
        alpn(b"h2", b"http/1.1"),
        versions(0x3A3A, 0x0304, 0x0303),
        (51, vector(2, b"\x11\xec" + vector(2, bytes(1216)))),  # as large as X25519MLKEM768
        (0xFAFA, b"\x00"),
    ],
    session=bytes(32),
)


def said(data: bytes) -> dict[str, object]:
    outcome = probe_hello(data)
    assert isinstance(outcome, dict), outcome
    return outcome


def test_what_a_browser_says() -> None:
    whole = BROWSER.records()
    assert len(whole) > 1400
    found = said(whole + b"what comes after it is not looked at")
    assert found == {
        "used": len(whole),
        "length": len(BROWSER.message()),
        "version": 0x0303,
        "version_max": 0x0304,
        "name": b"example.org",
        "alpn": b"h2",
        "ja3": ja3(BROWSER),
        "ja4": ja4(BROWSER),
    }
    assert str(found["ja4"]).startswith("t13d0407h2_")


@pytest.mark.parametrize("fragment", [1, 2, 3, 4, 5, 100, 1400])
def test_over_several_records(fragment: int) -> None:
    whole = BROWSER.records(fragment)
    assert said(whole)["ja4"] == ja4(BROWSER)
    assert said(whole)["used"] == len(whole)


@pytest.mark.parametrize("fragment", [3, 700, 16384])
def test_every_beginning_is_not_yet_complete(fragment: int) -> None:
    whole = BROWSER.records(fragment)
    assert {probe_hello(whole[:n]) for n in range(len(whole))} == {"more"}


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n", b"P", b"\x80\x2e\x01", b"\x15\x03\x01\x00\x02\x02\x28", b"\x00"]
)
def test_what_begins_no_handshake(first: bytes) -> None:
    assert probe_hello(first) == "plain"


MESSAGE = BROWSER.message()


@pytest.mark.parametrize(
    ("why", "data"),
    [
        ("record of another major version", b"\x16\x02\x00" + vector(2, MESSAGE)),
        ("empty record", b"\x16\x03\x01\x00\x00"),
        ("record above 2^14 bytes", b"\x16\x03\x01\x40\x01"),
        ("a ServerHello", b"\x16\x03\x03" + vector(2, b"\x02" + MESSAGE[1:])),
        ("a ServerHello, from its first byte on", b"\x16\x03\x03\x00\x40\x02"),
        (
            "another record in between",
            b"\x16\x03\x01" + vector(2, MESSAGE[:50]) + b"\x17\x03\x01" + vector(2, MESSAGE[50:]),
        ),
        ("an empty record in between", b"\x16\x03\x01" + vector(2, MESSAGE[:50]) + b"\x16\x03\x01\x00\x00"),
        ("bytes behind the message in its record", b"\x16\x03\x01" + vector(2, MESSAGE + b"\x00")),
        ("a message above 2^14 bytes", b"\x16\x03\x01" + vector(2, b"\x01\x00\x3f\xfd" + bytes(100))),
        ("an empty message", b"\x16\x03\x01" + vector(2, b"\x01\x00\x00\x00")),
        ("a version of SSL 2", replace(BROWSER, version=0x0200).records()),
        ("a session id above 32 bytes", replace(BROWSER, session=bytes(33)).records()),
        ("no ciphers", replace(BROWSER, ciphers=[]).records()),
        ("513 ciphers", replace(BROWSER, ciphers=list(range(513))).records()),
        ("129 extensions", Hello(extensions=[(1000 + i, b"") for i in range(129)]).records()),
        ("an extension twice", Hello(extensions=[groups(29), groups(29)]).records()),
        ("a GREASE extension twice", Hello(extensions=[(0x0A0A, b""), (0x0A0A, b"")]).records()),
        ("an empty name", Hello(extensions=[server_name(b"")]).records()),
        ("a name above 255 bytes", Hello(extensions=[server_name(b"a" * 256)]).records()),
        ("a name of another type", Hello(extensions=[(0, vector(2, b"\x01" + vector(2, b"a")))]).records()),
        ("two names", Hello(extensions=[(0, vector(2, 2 * (b"\x00" + vector(2, b"a"))))]).records()),
        ("no protocol", Hello(extensions=[alpn()]).records()),
        ("an empty protocol", Hello(extensions=[alpn(b"h2", b"")]).records()),
        ("no version", Hello(extensions=[versions()]).records()),
        ("half a version", Hello(extensions=[(43, b"\x01\x03")]).records()),
        ("half a group", Hello(extensions=[(10, b"\x00\x01\x00")]).records()),
        ("bytes behind the groups", Hello(extensions=[(10, b"\x00\x02\x00\x1d\x00")]).records()),
        ("129 signature algorithms", Hello(extensions=[signatures(*range(129))]).records()),
        ("bytes behind the formats", Hello(extensions=[(11, b"\x01\x00\x00")]).records()),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_refused(why: str, data: bytes) -> None:
    assert probe_hello(data) == "bad", why


def test_no_compression_method_is_refused() -> None:
    body = BROWSER.version.to_bytes(2) + bytes(32) + b"\x00" + vector(2, words([0x1301])) + b"\x00"
    assert probe_hello(b"\x16\x03\x01" + vector(2, b"\x01" + vector(3, body))) == "bad"


def test_without_extensions() -> None:
    old = Hello(version=0x0301, ciphers=[47, 53, 10])
    found = said(old.records())
    assert found["version_max"] == 0x0301
    assert found["ja4"] == ja4(old)
    assert str(found["ja4"]).startswith("t10i030000_")
    assert str(found["ja4"]).endswith("_000000000000")


def test_an_empty_server_name_counts_as_one() -> None:
    hello = Hello(extensions=[(0, b"")])
    assert said(hello.records())["name"] == b""
    assert str(said(hello.records())["ja4"]).startswith("t12d")


@pytest.mark.parametrize(
    ("protocol", "ends"),
    [
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"a", "aa"),
        # The examples of the published text.
        (b"\xab", "ab"),
        (b"\xab\xcd", "ad"),
        (b"\x30\xab", "3b"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"\x30\xab\xcd\x31", "01"),
        (b"h2 ", "60"),
    ],
)
def test_protocols(protocol: bytes, ends: str) -> None:
    hello = Hello(extensions=[alpn(protocol)])
    assert ja4(hello)[8:10] == ends
    assert said(hello.records())["ja4"] == ja4(hello)


def test_counts_end_at_99() -> None:
    hello = Hello(ciphers=list(range(1, 513)), extensions=[(1000 + i, b"") for i in range(128)])
    assert str(said(hello.records())["ja4"]).startswith("t12i999900_")
    assert said(hello.records())["ja4"] == ja4(hello)
    assert said(hello.records())["ja3"] == ja3(hello)


def random_hello(rng: random.Random) -> Hello:
    grease = sorted(GREASE)

    def values(count: int) -> list[int]:
        return [rng.choice(grease) if rng.random() < 0.1 else rng.randrange(65536) for _ in range(count)]

    known = [
        server_name(rng.randbytes(rng.randint(1, 40))),
        groups(*values(rng.randint(0, 12))),
        point_formats(*rng.randbytes(rng.randint(0, 4))),
        signatures(*values(rng.randint(0, 20))),
        alpn(*(rng.randbytes(rng.randint(1, 8)) for _ in range(rng.randint(1, 3)))),
        versions(*(rng.choice([0x0301, 0x0303, 0x0304, *grease]) for _ in range(rng.randint(1, 4)))),
    ]
    kinds = {kind for kind in values(rng.randint(0, 12)) if kind not in (0, 10, 11, 13, 16, 43)}
    extensions = [(kind, rng.randbytes(rng.randint(0, 30))) for kind in kinds]
    extensions += rng.sample(known, rng.randint(0, len(known)))
    rng.shuffle(extensions)
    version = rng.choice([0x0300, 0x0301, 0x0302, 0x0303])
    return Hello(version, values(rng.randint(1, 60)), extensions, rng.randbytes(rng.choice([0, 32])))


def test_random_hellos_against_the_reference() -> None:
    rng = random.Random(SEED)
    for turn in range(2000):
        hello = random_hello(rng)
        found = said(hello.records(rng.choice([7, 64, 16384])))
        assert (found["ja3"], found["ja4"]) == (ja3(hello), ja4(hello)), turn


def test_no_mutation_harms() -> None:
    """Read from exact allocations: a sanitizer sees what goes beyond them."""
    rng = random.Random(SEED)
    outcomes = set()
    for _ in range(4000):
        data = bytearray(random_hello(rng).records(rng.choice([30, 16384])))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        outcome = probe_hello(bytes(data[: rng.randint(1, len(data))]) if rng.random() < 0.3 else bytes(data))
        outcomes.add(outcome if isinstance(outcome, str) else "read")
    assert outcomes == {"more", "bad", "plain", "read"}

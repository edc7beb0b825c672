"""Sends a corpus through a running gateway to a recording origin, all at once; says how each stood after a while."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

import h11

from tests.e2e.recorder import Request

WAIT_S = 1.5  # what Http11Probe gives a connection before it looks at its state
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


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


async def _one(port: int, payload: bytes, source: str) -> Seen:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    data, closed = b"", False
    try:
        async with asyncio.timeout(WAIT_S):
            writer.write(payload)
            while piece := await reader.read(65536):
                data += piece
        closed = True
    except TimeoutError:
        pass
    except ConnectionError:
        closed = True
    finally:
        writer.close()
    statuses = tuple(int(text) for text in STATUS.findall(data) if not text.startswith(b"1"))
    return Seen(statuses, closed)


async def send_all(port: int, payloads: Sequence[bytes]) -> list[Seen]:
    """Each payload on a connection and from an address of its own."""
    calls = [_one(port, payload, f"127.0.{20 + i // 250}.{i % 250 + 1}") for i, payload in enumerate(payloads)]
    return list(await asyncio.gather(*calls))


def complaint_of_h11(request: Request) -> str:
    """What h11, a parser that is not ours, refuses about a head as it arrived at the origin; empty where nothing."""
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(request.head)
    try:
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        return str(error)
    return "" if isinstance(event, h11.Request) else f"{event!r}"

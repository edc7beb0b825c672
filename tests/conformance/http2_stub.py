"""Servers of HTTP/2 that do it wrong, each in one way: every case has to fail with at least one of them.

"yes": answers, acknowledges, and never finds fault. "gone": ends the connection at the first frame behind the exchange
of SETTINGS. "deaf": does nothing once they are exchanged. "rude": speaks before it sends its SETTINGS.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal

import hpack

from tests.conformance.http2_peer import (
    ACK,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    data,
    frame,
    headers,
    ping,
    settings,
    window_update,
)

Mode = Literal["yes", "gone", "deaf", "rude"]
BODY = b"0123456789"
STREAMS = (3, 10)  # SETTINGS_MAX_CONCURRENT_STREAMS, so that a case may exceed it


async def _serve(mode: Mode, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if mode == "rude":
        writer.write(window_update(0, 1))
    writer.write(settings(STREAMS))
    await reader.readexactly(len(PREFACE))
    exchanged = False
    while True:
        head = await reader.readexactly(9)
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:]) & 0x7FFFFFFF
        payload = await reader.readexactly(int.from_bytes(head[:3]))
        if exchanged and mode == "gone":
            return
        if exchanged and mode == "deaf":
            continue
        if kind == SETTINGS:
            exchanged = bool(flags & ACK)
            if not exchanged:
                writer.write(frame(SETTINGS, 0, flags=ACK))
        elif kind == PING and not flags & ACK:
            writer.write(ping(payload, ack=True))
        elif kind == HEADERS:
            block = hpack.Encoder().encode([(":status", "200")])
            writer.write(headers(stream, block, end_stream=False) + data(stream, BODY))


@contextlib.asynccontextmanager
async def stub(mode: Mode) -> AsyncIterator[int]:
    """Its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await _serve(mode, reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]

"""Group "http2", sections 3 to 5: the preface, frames in general, streams and their states."""

from __future__ import annotations

from h2.errors import ErrorCodes
from hyperframe.frame import SettingsFrame

from tests.conformance.http2_cases.registry import case
from tests.conformance.http2_peer import (
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HEADERS,
    PING,
    PREFACE,
    PRIORITIZED,
    UNKNOWN,
    WINDOW,
    Peer,
    Skipped,
    continuation,
    data,
    frame,
    headers,
    initial_window,
    ping,
    priority,
    priority_fields,
    rst_stream,
    window_update,
)

# ── 3.5 ──


@case("http2/3.5/1", "the first frame of the server is SETTINGS", bare=True)
async def server_preface(peer: Peer) -> None:
    await peer.send(PREFACE, initial_window(WINDOW))
    await peer.first_settings()


@case("http2/3.5/2", "what is no preface ends the connection", bare=True)
async def no_preface(peer: Peer) -> None:
    await peer.send(b"INVALID CONNECTION PREFACE\r\n\r\n")
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


# ── 4.1 ──


@case("http2/4.1/1", "a frame of an unknown type is passed over")
async def unknown_type(peer: Peer) -> None:
    await peer.send(frame(UNKNOWN, 0, bytes(8)))
    await peer.goes_on()


@case("http2/4.1/2", "flags without a meaning are passed over")
async def unknown_flags(peer: Peer) -> None:
    await peer.send(frame(PING, 0, bytes(8), 0x16))
    await peer.pong(bytes(8))


@case("http2/4.1/3", "the reserved bit before a stream's number is passed over")
async def reserved_bit(peer: Peer) -> None:
    await peer.send(frame(PING, 1 << 31, bytes(8), 0x16))
    await peer.pong(bytes(8))


# ── 4.2 ──


@case("http2/4.2/1", "a DATA frame of 2^14 bytes is taken")
async def large_data(peer: Peer) -> None:
    await peer.send(peer.post(), data(1, b"x" * FRAME_BYTES))
    await peer.response()


@case("http2/4.2/2", "a DATA frame larger than the server allows")
async def too_large_data(peer: Peer) -> None:
    await peer.send(peer.post(), data(1, b"x" * (peer.frame_bytes_max + 1)))
    await peer.stream_error(ErrorCodes.FRAME_SIZE_ERROR)


@case("http2/4.2/3", "a HEADERS frame larger than the server allows")
async def too_large_headers(peer: Peer) -> None:
    block = peer.block(peer.fields())
    block += b"".join(peer.dummy(peer.frame_bytes_max // 4, f"x-dummy{i}") for i in range(5))
    await peer.send(headers(1, block))
    await peer.connection_error(ErrorCodes.FRAME_SIZE_ERROR)


# ── 4.3 ──


@case("http2/4.3/1", "a block that ends within a field")
async def cut_block(peer: Peer) -> None:
    await peer.send(frame(HEADERS, 1, b"\x40", END_STREAM | END_HEADERS))
    await peer.connection_error(ErrorCodes.COMPRESSION_ERROR)


@case("http2/4.3/2", "PRIORITY within a block")
async def priority_within_block(peer: Peer) -> None:
    await peer.send(
        headers(1, peer.block(peer.fields()), end_stream=False, end_headers=False),
        priority(1),
        continuation(1, peer.dummy()),
    )
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/4.3/3", "HEADERS of another stream within a block")
async def headers_within_block(peer: Peer) -> None:
    await peer.send(
        headers(1, peer.block(peer.fields()), end_stream=False, end_headers=False),
        headers(3, peer.block(peer.fields())),
        continuation(1, peer.dummy()),
    )
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


# ── 5.1 ──


@case("http2/5.1/1", "idle: DATA")
async def idle_data(peer: Peer) -> None:
    await peer.send(data(1))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/5.1/2", "idle: RST_STREAM")
async def idle_rst(peer: Peer) -> None:
    await peer.send(rst_stream(1))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/5.1/3", "idle: WINDOW_UPDATE")
async def idle_window(peer: Peer) -> None:
    await peer.send(window_update(1, 100))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/5.1/4", "idle: CONTINUATION")
async def idle_continuation(peer: Peer) -> None:
    await peer.send(continuation(1, peer.block(peer.fields())))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/5.1/5", "half-closed (remote): DATA")
async def half_closed_data(peer: Peer) -> None:
    await peer.send(peer.get(), data(1))
    await peer.stream_error(ErrorCodes.STREAM_CLOSED)


@case("http2/5.1/6", "half-closed (remote): HEADERS")
async def half_closed_headers(peer: Peer) -> None:
    await peer.send(peer.get(), peer.get())
    await peer.stream_error(ErrorCodes.STREAM_CLOSED)


@case("http2/5.1/7", "half-closed (remote): CONTINUATION")
async def half_closed_continuation(peer: Peer) -> None:
    await peer.send(peer.get(), continuation(1, peer.block(peer.fields())))
    await peer.stream_error(ErrorCodes.STREAM_CLOSED, ErrorCodes.PROTOCOL_ERROR)


@case("http2/5.1/8", "closed by our RST_STREAM: DATA")
async def reset_data(peer: Peer) -> None:
    await peer.send(peer.get(end_stream=False), rst_stream(1), data(1))
    await peer.stream_error(ErrorCodes.STREAM_CLOSED)


@case("http2/5.1/9", "closed by our RST_STREAM: HEADERS")
async def reset_headers(peer: Peer) -> None:
    await peer.send(peer.get(end_stream=False), rst_stream(1), peer.get())
    await peer.stream_error(ErrorCodes.STREAM_CLOSED)


@case("http2/5.1/10", "closed by our RST_STREAM: CONTINUATION")
async def reset_continuation(peer: Peer) -> None:
    await peer.send(peer.get(end_stream=False), rst_stream(1), continuation(1, peer.dummy()))
    await peer.stream_error(ErrorCodes.STREAM_CLOSED, ErrorCodes.PROTOCOL_ERROR)


@case("http2/5.1/11", "closed by END_STREAM of both: DATA")
async def closed_data(peer: Peer) -> None:
    await peer.send(peer.get())
    await peer.stream_end()
    await peer.send(data(1))
    await peer.stream_error(ErrorCodes.STREAM_CLOSED)


@case("http2/5.1/12", "closed by END_STREAM of both: HEADERS")
async def closed_headers(peer: Peer) -> None:
    await peer.send(peer.get())
    await peer.stream_end()
    await peer.send(peer.get())
    await peer.connection_error(ErrorCodes.STREAM_CLOSED)


@case("http2/5.1/13", "closed by END_STREAM of both: CONTINUATION")
async def closed_continuation(peer: Peer) -> None:
    await peer.send(peer.get())
    await peer.stream_end()
    await peer.send(continuation(1, peer.dummy()))
    await peer.connection_error(ErrorCodes.STREAM_CLOSED, ErrorCodes.PROTOCOL_ERROR)


# ── 5.1.1 ──


@case("http2/5.1.1/1", "a request on an even stream")
async def even_stream(peer: Peer) -> None:
    await peer.send(peer.get(stream=2))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/5.1.1/2", "a request on a lower stream than the last")
async def lower_stream(peer: Peer) -> None:
    await peer.send(peer.get(stream=5), peer.get(stream=3))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


# ── 5.1.2 ──

STREAMS_MAX = 2_000


@case("http2/5.1.2/1", "one stream more than the server allows at once")
async def too_many_streams(peer: Peer) -> None:
    allowed = peer.settings.get(SettingsFrame.MAX_CONCURRENT_STREAMS)
    if allowed is None or allowed > STREAMS_MAX:
        raise Skipped(f"allows {allowed or 'any number of'} streams")
    await peer.send(initial_window(0))  # so that none ends meanwhile
    for number in range(allowed + 1):
        await peer.send(peer.get(stream=1 + 2 * number))
    await peer.stream_error(ErrorCodes.PROTOCOL_ERROR, ErrorCodes.REFUSED_STREAM)


# ── 5.3.1 (RFC 7540; RFC 9113 has no dependencies any more) ──


@case("http2/5.3.1/1", "HEADERS of a stream that depends on itself")
async def headers_on_itself(peer: Peer) -> None:
    block = priority_fields(depends_on=1) + peer.block(peer.fields())
    await peer.send(frame(HEADERS, 1, block, END_STREAM | END_HEADERS | PRIORITIZED))
    await peer.stream_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/5.3.1/2", "PRIORITY of a stream that depends on itself")
async def priority_on_itself(peer: Peer) -> None:
    await peer.send(priority(1, depends_on=1))
    await peer.stream_error(ErrorCodes.PROTOCOL_ERROR)


# ── 5.4.1 ──


@case("http2/5.4.1/1", "an error ends the connection")
async def error_ends(peer: Peer) -> None:
    await peer.send(ping(bytes(8), stream=3))
    await peer.end()


@case("http2/5.4.1/2", "before the end comes GOAWAY", strict=True)
async def error_says_goaway(peer: Peer) -> None:
    await peer.send(ping(bytes(8), stream=3))
    await peer.goes_away()


# ── 5.5 ──


@case("http2/5.5/1", "a frame of an extension is passed over")
async def extension(peer: Peer) -> None:
    await peer.send(frame(UNKNOWN, 0, bytes(8)))
    await peer.goes_on()


@case("http2/5.5/2", "a frame of an extension within a block")
async def extension_within_block(peer: Peer) -> None:
    await peer.send(headers(1, peer.block(peer.fields()), end_headers=False), frame(UNKNOWN, 0, bytes(8)))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)

"""Group "http2", section 6.9: windows, of streams and of the connection. The body of GET / has 5 bytes or more."""

from __future__ import annotations

from h2.errors import ErrorCodes

from tests.conformance.http2_cases.registry import case
from tests.conformance.http2_peer import WINDOW_UPDATE, Peer, frame, initial_window, window_update

WINDOW_MAX = (1 << 31) - 1


@case("http2/6.9/1", "an increment of 0 to the connection's window")
async def nothing_for_connection(peer: Peer) -> None:
    await peer.send(window_update(0, 0))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.9/2", "an increment of 0 to a stream's window")
async def nothing_for_stream(peer: Peer) -> None:
    await peer.send(peer.get(end_stream=False), window_update(1, 0))
    await peer.stream_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.9/3", "WINDOW_UPDATE of 3 bytes")
async def short_update(peer: Peer) -> None:
    await peer.send(frame(WINDOW_UPDATE, 0, b"\x00\x00\x01"))
    await peer.connection_error(ErrorCodes.FRAME_SIZE_ERROR)


# ── 6.9.1 ──


@case("http2/6.9.1/1", "no more is sent than a window of one byte lets through")
async def one_byte(peer: Peer) -> None:
    await peer.send(initial_window(1))
    await peer.settings_ack()
    await peer.send(peer.get())
    await peer.body(1)


@case("http2/6.9.1/2", "the connection's window grows beyond the largest: GOAWAY, and no less")
async def connection_beyond(peer: Peer) -> None:
    await peer.send(window_update(0, WINDOW_MAX), window_update(0, WINDOW_MAX))
    await peer.goes_away(ErrorCodes.FLOW_CONTROL_ERROR)


@case("http2/6.9.1/3", "a stream's window grows beyond the largest: RST_STREAM, and no more")
async def stream_beyond(peer: Peer) -> None:
    await peer.send(peer.get(end_stream=False), window_update(1, WINDOW_MAX), window_update(1, WINDOW_MAX))
    await peer.reset(1, ErrorCodes.FLOW_CONTROL_ERROR)


# ── 6.9.2 ──


@case("http2/6.9.2/1", "a new initial size changes the windows of open streams")
async def window_changed(peer: Peer) -> None:
    await peer.send(initial_window(0))
    await peer.settings_ack()
    await peer.send(peer.get(), initial_window(1))
    await peer.body(1)


@case("http2/6.9.2/2", "a window may become negative, and is filled up from there")
async def window_negative(peer: Peer) -> None:
    await peer.send(initial_window(3))
    await peer.settings_ack()
    await peer.send(peer.get())
    await peer.body()
    await peer.send(initial_window(2))
    await peer.settings_ack()
    await peer.send(window_update(1, 2))  # from -1
    await peer.body(1)


@case("http2/6.9.2/3", "an initial size above the largest window")
async def initial_beyond(peer: Peer) -> None:
    await peer.send(initial_window(WINDOW_MAX + 1))
    await peer.connection_error(ErrorCodes.FLOW_CONTROL_ERROR)

"""Group "http2", section 6 but for flow control (flow.py): what each kind of frame must not be."""

from __future__ import annotations

from h2.errors import ErrorCodes
from hyperframe.frame import SettingsFrame

from tests.conformance.http2_cases.registry import case
from tests.conformance.http2_peer import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    Peer,
    continuation,
    data,
    frame,
    headers,
    initial_window,
    ping,
    priority,
    rst_stream,
    settings,
)

# ── 6.1: DATA ──


@case("http2/6.1/1", "DATA on stream 0")
async def data_on_0(peer: Peer) -> None:
    await peer.send(data(0))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.1/2", "DATA on a stream that is neither open nor half-closed (local)")
async def data_behind_end(peer: Peer) -> None:
    await peer.send(headers(1, peer.block(peer.fields("POST"))), data(1))
    await peer.stream_error(ErrorCodes.STREAM_CLOSED)


@case("http2/6.1/3", "DATA with more padding than there is frame")
async def overpadded_data(peer: Peer) -> None:
    await peer.send(peer.post(("content-length", "4")), frame(DATA, 1, b"\x06test", END_STREAM | PADDED))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


# ── 6.2: HEADERS ──


@case("http2/6.2/1", "HEADERS without END_HEADERS, then PRIORITY")
async def headers_then_priority(peer: Peer) -> None:
    await peer.send(
        headers(1, peer.block(peer.fields()), end_stream=False, end_headers=False),
        priority(1),
        continuation(1, peer.dummy()),
    )
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.2/2", "HEADERS without END_HEADERS, then HEADERS of another stream")
async def headers_then_headers(peer: Peer) -> None:
    await peer.send(
        headers(1, peer.block(peer.fields()), end_stream=False, end_headers=False),
        headers(3, peer.block(peer.fields())),
        continuation(1, peer.dummy()),
    )
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.2/3", "HEADERS on stream 0")
async def headers_on_0(peer: Peer) -> None:
    await peer.send(peer.get(stream=0))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.2/4", "HEADERS with more padding than there is frame")
async def overpadded_headers(peer: Peer) -> None:
    block = peer.block(peer.fields())
    padding = bytes([len(block) + 2])
    await peer.send(frame(HEADERS, 1, padding + block, END_STREAM | END_HEADERS | PADDED))
    await peer.stream_error(ErrorCodes.PROTOCOL_ERROR)


# ── 6.3: PRIORITY ──


@case("http2/6.3/1", "PRIORITY on stream 0")
async def priority_on_0(peer: Peer) -> None:
    await peer.send(priority(0))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.3/2", "PRIORITY of 4 bytes")
async def short_priority(peer: Peer) -> None:
    await peer.send(peer.get(), frame(PRIORITY, 1, b"\x80\x00\x00\x01"))
    await peer.stream_error(ErrorCodes.FRAME_SIZE_ERROR)


# ── 6.4: RST_STREAM ──


@case("http2/6.4/1", "RST_STREAM on stream 0")
async def rst_on_0(peer: Peer) -> None:
    await peer.send(rst_stream(0))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.4/2", "RST_STREAM on an idle stream")
async def rst_on_idle(peer: Peer) -> None:
    await peer.send(rst_stream(1))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.4/3", "RST_STREAM of 3 bytes")
async def short_rst(peer: Peer) -> None:
    await peer.send(peer.get(), frame(RST_STREAM, 1, bytes(3)))
    await peer.stream_error(ErrorCodes.FRAME_SIZE_ERROR)


# ── 6.5: SETTINGS ──


@case("http2/6.5/1", "SETTINGS with ACK and a payload")
async def ack_with_payload(peer: Peer) -> None:
    await peer.send(frame(SETTINGS, 0, b"\x00", ACK))
    await peer.connection_error(ErrorCodes.FRAME_SIZE_ERROR)


@case("http2/6.5/2", "SETTINGS on a stream")
async def settings_on_stream(peer: Peer) -> None:
    await peer.send(frame(SETTINGS, 1, b"\x00\x03\x00\x00\x00\x64"))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.5/3", "SETTINGS of 3 bytes")
async def short_settings(peer: Peer) -> None:
    await peer.send(frame(SETTINGS, 0, b"\x00\x03\x00"))
    await peer.stream_error(ErrorCodes.PROTOCOL_ERROR, ErrorCodes.FRAME_SIZE_ERROR)


# ── 6.5.2 ──


@case("http2/6.5.2/1", "ENABLE_PUSH that is neither 0 nor 1")
async def enable_push_2(peer: Peer) -> None:
    await peer.send(settings((SettingsFrame.ENABLE_PUSH, 2)))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.5.2/2", "INITIAL_WINDOW_SIZE above the largest window")
async def window_too_large(peer: Peer) -> None:
    await peer.send(initial_window(1 << 31))
    await peer.connection_error(ErrorCodes.FLOW_CONTROL_ERROR)


@case("http2/6.5.2/3", "MAX_FRAME_SIZE below its initial value")
async def frame_size_too_small(peer: Peer) -> None:
    await peer.send(settings((SettingsFrame.MAX_FRAME_SIZE, (1 << 14) - 1)))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.5.2/4", "MAX_FRAME_SIZE above what its 24 bits can say")
async def frame_size_too_large(peer: Peer) -> None:
    await peer.send(settings((SettingsFrame.MAX_FRAME_SIZE, 1 << 24)))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.5.2/5", "an unknown parameter is passed over")
async def unknown_setting(peer: Peer) -> None:
    await peer.send(settings((0xFF, 1)))
    await peer.goes_on()


# ── 6.5.3 ──


@case("http2/6.5.3/1", "of two values of a parameter the last one counts")
async def settings_in_order(peer: Peer) -> None:
    await peer.send(initial_window(100, 1))
    await peer.settings_ack()
    await peer.send(peer.get())
    await peer.body(1)


@case("http2/6.5.3/2", "SETTINGS are acknowledged")
async def settings_acknowledged(peer: Peer) -> None:
    await peer.send(settings((SettingsFrame.ENABLE_PUSH, 0)))
    await peer.settings_ack()


# ── 6.7: PING ──


@case("http2/6.7/1", "PING is answered with the same payload")
async def ping_answered(peer: Peer) -> None:
    await peer.send(ping(b"the same"))
    await peer.pong(b"the same")


@case("http2/6.7/2", "PING with ACK is not answered")
async def pong_not_answered(peer: Peer) -> None:
    await peer.send(ping(b"no reply", ack=True), ping(b"a reply!"))
    await peer.pong(b"a reply!")


@case("http2/6.7/3", "PING on a stream")
async def ping_on_stream(peer: Peer) -> None:
    await peer.send(ping(bytes(8), stream=1))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.7/4", "PING of 6 bytes")
async def short_ping(peer: Peer) -> None:
    await peer.send(frame(PING, 0, bytes(6)))
    await peer.connection_error(ErrorCodes.FRAME_SIZE_ERROR)


# ── 6.8: GOAWAY ──


@case("http2/6.8/1", "GOAWAY on a stream")
async def goaway_on_stream(peer: Peer) -> None:
    await peer.send(frame(GOAWAY, 1, bytes(8)))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


# ── 6.10: CONTINUATION ──


@case("http2/6.10/1", "HEADERS and several CONTINUATION are one head")
async def continued(peer: Peer) -> None:
    await peer.send(
        headers(1, peer.block(peer.fields()), end_headers=False),
        continuation(1, peer.dummy(), end_headers=False),
        continuation(1, peer.dummy()),
    )
    await peer.response(status="")  # two headers of 4,000 bytes may be more than a server takes


@case("http2/6.10/2", "within a block another frame than CONTINUATION")
async def interrupted(peer: Peer) -> None:
    await peer.send(
        headers(1, peer.block(peer.fields("POST")), end_stream=False, end_headers=False),
        continuation(1, peer.dummy(), end_headers=False),
        data(1),
    )
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.10/3", "CONTINUATION on stream 0")
async def continuation_on_0(peer: Peer) -> None:
    await peer.send(headers(1, peer.block(peer.fields()), end_headers=False), continuation(0, peer.dummy()))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.10/4", "CONTINUATION behind HEADERS with END_HEADERS")
async def continuation_behind_headers(peer: Peer) -> None:
    await peer.send(peer.get(), continuation(1, peer.dummy()))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.10/5", "CONTINUATION behind CONTINUATION with END_HEADERS")
async def continuation_behind_continuation(peer: Peer) -> None:
    await peer.send(
        headers(1, peer.block(peer.fields()), end_headers=False),
        continuation(1, peer.dummy()),
        continuation(1, peer.dummy()),
    )
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/6.10/6", "CONTINUATION behind DATA")
async def continuation_behind_data(peer: Peer) -> None:
    await peer.send(
        headers(1, peer.block(peer.fields("POST")), end_stream=False, end_headers=False),
        data(1),
        continuation(1, peer.dummy(), end_headers=False),
        continuation(0, peer.dummy()),
    )
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)

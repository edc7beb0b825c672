"""Group "generic": what any server has to take, as browsers and libraries say it."""

from __future__ import annotations

import hpack.huffman
import hpack.huffman_constants
from h2.errors import ErrorCodes
from hyperframe.frame import SettingsFrame

from tests.conformance.http2_cases.registry import case
from tests.conformance.http2_peer import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PREFACE,
    PRIORITIZED,
    WINDOW,
    Peer,
    continuation,
    data,
    frame,
    goaway,
    headers,
    initial_window,
    ping,
    priority,
    priority_fields,
    rst_stream,
    settings,
    window_update,
)


@case("generic/1/1", "preface and SETTINGS: the first frame back is SETTINGS", bare=True)
async def preface(peer: Peer) -> None:
    await peer.send(PREFACE, initial_window(WINDOW))
    await peer.first_settings()


# ── 2: streams ──


@case("generic/2/1", "PRIORITY on an idle stream is taken")
async def priority_on_idle(peer: Peer) -> None:
    await peer.send(priority(1))
    await peer.goes_on()


@case("generic/2/2", "WINDOW_UPDATE on a half-closed stream is taken: it lets the body begin")
async def window_on_half_closed(peer: Peer) -> None:
    # Without a window the server cannot be done with the stream before the update is there.
    await peer.send(initial_window(0), peer.get(), window_update(1, 1))
    await peer.body()


@case("generic/2/3", "PRIORITY on a half-closed stream is taken")
async def priority_on_half_closed(peer: Peer) -> None:
    await peer.send(initial_window(0), peer.get(), priority(1), window_update(1, 1))
    await peer.body()


@case("generic/2/4", "RST_STREAM on a half-closed stream is taken")
async def rst_on_half_closed(peer: Peer) -> None:
    await peer.send(peer.get(), rst_stream(1))
    await peer.goes_on(or_end=True)


@case("generic/2/5", "PRIORITY on a closed stream is taken")
async def priority_on_closed(peer: Peer) -> None:
    await peer.send(peer.get())
    await peer.stream_end()
    await peer.send(priority(1))
    await peer.goes_on()


# ── 3: frames ──


@case("generic/3.1/1", "a body of one DATA frame")
async def one_data(peer: Peer) -> None:
    await peer.send(peer.post(), data(1))
    await peer.response()


@case("generic/3.1/2", "a body of two DATA frames")
async def two_data(peer: Peer) -> None:
    await peer.send(peer.post(), data(1, end_stream=False), data(1))
    await peer.response()


@case("generic/3.1/3", "a DATA frame with padding")
async def padded_data(peer: Peer) -> None:
    await peer.send(peer.post(), frame(DATA, 1, b"\x06" + b"test" + bytes(6), END_STREAM | PADDED))
    await peer.response()


@case("generic/3.2/1", "a HEADERS frame")
async def plain_headers(peer: Peer) -> None:
    await peer.send(peer.get())
    await peer.response()


@case("generic/3.2/2", "a HEADERS frame with padding")
async def padded_headers(peer: Peer) -> None:
    block = peer.block(peer.fields())
    await peer.send(frame(HEADERS, 1, b"\x08" + block + bytes(8), END_STREAM | END_HEADERS | PADDED))
    await peer.response()


@case("generic/3.2/3", "a HEADERS frame with a priority")
async def prioritized_headers(peer: Peer) -> None:
    block = peer.block(peer.fields())
    await peer.send(frame(HEADERS, 1, priority_fields() + block, END_STREAM | END_HEADERS | PRIORITIZED))
    await peer.response()


@case("generic/3.3/1", "PRIORITY with the least weight")
async def least_weight(peer: Peer) -> None:
    await peer.send(priority(1, weight=1), peer.get())
    await peer.response()


@case("generic/3.3/2", "PRIORITY with the greatest weight")
async def greatest_weight(peer: Peer) -> None:
    await peer.send(priority(1, weight=256), peer.get())
    await peer.response()


@case("generic/3.3/3", "PRIORITY that depends on another stream")
async def dependency(peer: Peer) -> None:
    await peer.send(priority(3, depends_on=1, weight=1), peer.get())
    await peer.response()


@case("generic/3.3/4", "PRIORITY that is exclusive")
async def exclusive(peer: Peer) -> None:
    await peer.send(priority(1, weight=1, exclusive=True), peer.get())
    await peer.response()


@case("generic/3.3/5", "PRIORITY does not open its stream: a request on a lower one is answered")
async def lower_stream(peer: Peer) -> None:
    await peer.send(priority(3), peer.get(stream=1))
    await peer.response()


@case("generic/3.4/1", "RST_STREAM on an open stream")
async def rst(peer: Peer) -> None:
    await peer.send(peer.get(end_stream=False), rst_stream(1))
    await peer.goes_on(or_end=True)


@case("generic/3.5/1", "SETTINGS with every parameter are acknowledged")
async def every_setting(peer: Peer) -> None:
    await peer.send(
        settings(
            (SettingsFrame.HEADER_TABLE_SIZE, 4096),
            (SettingsFrame.ENABLE_PUSH, 1),
            (SettingsFrame.MAX_CONCURRENT_STREAMS, 100),
            (SettingsFrame.INITIAL_WINDOW_SIZE, WINDOW),
            (SettingsFrame.MAX_FRAME_SIZE, 16_384),
            (SettingsFrame.MAX_HEADER_LIST_SIZE, 100),
        )
    )
    await peer.settings_ack()


@case("generic/3.7/1", "PING is answered")
async def plain_ping(peer: Peer) -> None:
    await peer.send(ping(b"8 bytes!"))
    await peer.pong(b"8 bytes!")


@case("generic/3.8/1", "GOAWAY is taken: the connection goes on, or ends in order")
async def goaway_taken(peer: Peer) -> None:
    await peer.send(goaway(ErrorCodes.NO_ERROR, b"that was all"))
    await peer.goes_on(or_end=True)


@case("generic/3.9/1", "WINDOW_UPDATE of the connection")
async def connection_window(peer: Peer) -> None:
    await peer.send(window_update(0, 1))
    await peer.goes_on()


@case("generic/3.9/2", "WINDOW_UPDATE of a stream")
async def stream_window(peer: Peer) -> None:
    await peer.send(peer.get(), window_update(1, 1))
    await peer.response()


@case("generic/3.10/1", "a head in HEADERS and a CONTINUATION")
async def one_continuation(peer: Peer) -> None:
    block = peer.block(peer.fields())
    await peer.send(headers(1, block[:5], end_headers=False), continuation(1, block[5:]))
    await peer.response()


@case("generic/3.10/2", "a head in HEADERS and two CONTINUATION")
async def two_continuations(peer: Peer) -> None:
    block = peer.block(peer.fields())
    await peer.send(
        headers(1, block[:5], end_headers=False),
        continuation(1, block[5:10], end_headers=False),
        continuation(1, block[10:]),
    )
    await peer.response()


# ── 4: requests ──


@case("generic/4/1", "GET")
async def get(peer: Peer) -> None:
    await peer.send(peer.get())
    await peer.response()


@case("generic/4/2", "HEAD")
async def head(peer: Peer) -> None:
    await peer.send(headers(1, peer.block(peer.fields("HEAD"))))
    await peer.response()


@case("generic/4/3", "POST")
async def post(peer: Peer) -> None:
    await peer.send(peer.post(), data(1))
    await peer.response()


@case("generic/4/4", "POST with trailers")
async def post_with_trailers(peer: Peer) -> None:
    await peer.send(peer.post(("trailer", "x-test")), data(1, end_stream=False))
    await peer.send(headers(1, peer.block([("x-test", "ok")])))
    await peer.response()


# ── 5: what RFC 7541 6 lets an encoder say ──

HUFFMAN = hpack.huffman.HuffmanEncoder(
    hpack.huffman_constants.REQUEST_CODES, hpack.huffman_constants.REQUEST_CODES_LENGTH
)


def string(text: bytes, huffman: bool) -> bytes:
    """A string literal (5.2) shorter than 127 bytes."""
    coded = HUFFMAN.encode(text) if huffman else text
    return bytes([0x80 * huffman | len(coded)]) + coded


def represented(id: str, title: str, before: bytes, behind: bytes) -> None:
    """A request whose block has more in front of it or behind it is answered."""

    @case(id, title)
    async def steps(peer: Peer) -> None:
        await peer.send(headers(1, before + peer.block(peer.fields()) + behind))
        await peer.response()


represented("generic/5/1", "an indexed field", b"", b"\xba")  # 58 of the static table: user-agent, empty
for first, (pattern, how) in enumerate([(0x40, "to be indexed"), (0x00, "not indexed"), (0x10, "never indexed")]):
    # "user-agent" as text, like h2spec has it, though the static table would have its name.
    for step, (name, what) in enumerate([(b"user-agent", "a known name"), (b"x-test", "a new name")]):
        for huffman in (False, True):
            represented(
                f"generic/5/{2 + 4 * first + 2 * step + huffman}",
                f"a literal {how}, {what}{', Huffman-coded' * huffman}",
                b"",
                bytes([pattern]) + string(name, huffman) + string(b"h2spec", huffman),
            )
represented("generic/5/14", "an update of the table's size", b"\x3f\x61", b"")  # to 128
represented("generic/5/15", "two updates of the table's size", b"\x3f\x61\x3f\xe1\x1f", b"")  # to 128, to 4096

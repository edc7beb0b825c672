"""Group "http2", sections 7 and 8: unknown error codes, and requests that are malformed though their frames are not."""

from __future__ import annotations

import struct

from h2.errors import ErrorCodes

from tests.conformance.http2_cases.registry import case
from tests.conformance.http2_peer import (
    END_HEADERS,
    PUSH_PROMISE,
    Fields,
    Peer,
    data,
    frame,
    goaway,
    headers,
    rst_stream,
)

# ── 7 ──


@case("http2/7/1", "GOAWAY with an unknown code: the connection goes on, or ends in order")
async def unknown_goaway(peer: Peer) -> None:
    await peer.send(goaway(0xFF))
    await peer.goes_on(or_end=True)


@case("http2/7/2", "RST_STREAM with an unknown code: the connection goes on")
async def unknown_rst(peer: Peer) -> None:
    await peer.send(peer.post(), rst_stream(1, 0xFF))
    await peer.goes_on()


# ── 8.1 ──


@case("http2/8.1/1", "a second HEADERS that does not end the stream")
async def endless_trailers(peer: Peer) -> None:
    await peer.send(peer.post(), data(1, end_stream=False))
    await peer.send(headers(1, peer.block([("x-test", "ok")]), end_stream=False))
    await peer.stream_error(ErrorCodes.PROTOCOL_ERROR)


async def refused(peer: Peer, fields: Fields) -> None:
    """A request with these fields, and no body, is malformed."""
    await peer.send(headers(1, peer.block(fields)))
    await peer.stream_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/8.1.2/1", "a name in upper case")
async def upper_case(peer: Peer) -> None:
    await refused(peer, peer.fields("GET", ("X-TEST", "ok")))


# ── 8.1.2.1 ──


@case("http2/8.1.2.1/1", "an unknown pseudo-header")
async def unknown_pseudo(peer: Peer) -> None:
    await refused(peer, peer.fields("GET", (":test", "ok")))


@case("http2/8.1.2.1/2", "a pseudo-header of responses")
async def response_pseudo(peer: Peer) -> None:
    await refused(peer, peer.fields("GET", (":status", "200")))


@case("http2/8.1.2.1/3", "a pseudo-header in trailers")
async def trailing_pseudo(peer: Peer) -> None:
    await peer.send(peer.post(), data(1, end_stream=False))
    # No END_STREAM, as h2spec has it; with it HAProxy 2.6 says INTERNAL_ERROR.
    await peer.send(headers(1, peer.block([(":method", "POST")]), end_stream=False))
    await peer.stream_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/8.1.2.1/4", "pseudo-headers behind another header")
async def late_pseudo(peer: Peer) -> None:
    await refused(peer, [("x-test", "ok"), *peer.fields()])


# ── 8.1.2.2 ──


@case("http2/8.1.2.2/1", "a header about the connection")
async def connection_header(peer: Peer) -> None:
    await refused(peer, peer.fields("GET", ("connection", "keep-alive")))


@case("http2/8.1.2.2/2", 'TE with more than "trailers"')
async def te(peer: Peer) -> None:
    await refused(peer, peer.fields("GET", ("trailers", "test"), ("te", "trailers, deflate")))


# ── 8.1.2.3 ──


@case("http2/8.1.2.3/1", "an empty :path")
async def empty_path(peer: Peer) -> None:
    await refused(peer, [(name, "" if name == ":path" else value) for name, value in peer.fields()])


def counted(first: int, names: tuple[str, ...], what: str, times: int) -> None:
    """Requests in which one of these pseudo-headers comes this often."""
    for number, wrong in enumerate(names, first):

        @case(f"http2/8.1.2.3/{number}", f"{what} {wrong}")
        async def steps(peer: Peer, wrong: str = wrong) -> None:
            fields = peer.fields()
            found = [field for field in fields if field[0] == wrong]
            await refused(peer, [field for field in fields if field[0] != wrong or times] + found * (times - 1))


counted(2, (":method", ":scheme", ":path"), "no", 0)
counted(5, (":method", ":scheme", ":path"), "two", 2)


# ── 8.1.2.6 ──


@case("http2/8.1.2.6/1", "a Content-Length that is not the size of the DATA")
async def wrong_length(peer: Peer) -> None:
    await peer.send(peer.post(("content-length", "1")), data(1))
    await peer.stream_error(ErrorCodes.PROTOCOL_ERROR)


@case("http2/8.1.2.6/2", "a Content-Length that is not the size of several DATA")
async def wrong_length_of_several(peer: Peer) -> None:
    await peer.send(peer.post(("content-length", "1")), data(1, end_stream=False), data(1))
    await peer.stream_error(ErrorCodes.PROTOCOL_ERROR)


# ── 8.2 ──


@case("http2/8.2/1", "PUSH_PROMISE of a client")
async def push(peer: Peer) -> None:
    promised = struct.pack(">I", 3)
    await peer.send(frame(PUSH_PROMISE, 1, promised + peer.block(peer.fields()), END_HEADERS))
    await peer.connection_error(ErrorCodes.PROTOCOL_ERROR)

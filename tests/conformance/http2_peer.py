"""An HTTP/2 client that says exactly what a case wants said, right or wrong, and waits for the answer a case accepts.

Frames are built here, byte by byte: hyperframe refuses to build many that cases need. What comes back is read by
hyperframe and hpack, so that a server's malformed frame is an error of its own.

Owns: one socket. Invariants: every wait has a deadline; nothing is sent that a case did not ask for, but for the
exchange of SETTINGS in `handshake`; a write into a closed connection is no error, the next read tells.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable

import hpack
from h2.errors import ErrorCodes
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from tests.e2e.support import SLOW

WAIT_S = 1.5 * SLOW
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW = 65_535  # of a stream and of the connection, where nobody says otherwise
FRAME_BYTES = 16_384

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
UNKNOWN = 0x16  # a type that nothing defines
END_STREAM = ACK = 0x01
END_HEADERS = 0x04
PADDED = 0x08
PRIORITIZED = 0x20

Fields = list[tuple[str, str]]


class Unexpected(AssertionError):
    """Something else came than what the case accepts."""


class Skipped(Exception):
    """The case does not apply to this server."""


# ── frames as bytes ──


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(stream: int, block: bytes, *, end_stream: bool = True, end_headers: bool = True) -> bytes:
    return frame(HEADERS, stream, block, END_STREAM * end_stream | END_HEADERS * end_headers)


def continuation(stream: int, block: bytes, *, end_headers: bool = True) -> bytes:
    return frame(CONTINUATION, stream, block, END_HEADERS * end_headers)


def data(stream: int, body: bytes = b"test", *, end_stream: bool = True) -> bytes:
    return frame(DATA, stream, body, END_STREAM * end_stream)


def priority_fields(depends_on: int = 0, weight: int = 256, *, exclusive: bool = False) -> bytes:
    return struct.pack(">IB", depends_on | exclusive << 31, weight - 1)


def priority(stream: int, depends_on: int = 0, weight: int = 256, *, exclusive: bool = False) -> bytes:
    return frame(PRIORITY, stream, priority_fields(depends_on, weight, exclusive=exclusive))


def rst_stream(stream: int, code: int = ErrorCodes.CANCEL) -> bytes:
    return frame(RST_STREAM, stream, struct.pack(">I", code))


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def initial_window(*sizes: int) -> bytes:
    """SETTINGS with this SETTINGS_INITIAL_WINDOW_SIZE, or several one after another."""
    return settings(*((SettingsFrame.INITIAL_WINDOW_SIZE, size) for size in sizes))


def ping(payload: bytes, *, ack: bool = False, stream: int = 0) -> bytes:
    return frame(PING, stream, payload, ACK * ack)


def goaway(code: int, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, struct.pack(">II", 0, code) + debug)


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, stream, struct.pack(">I", increment))


def named(code: int) -> str:
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error {code}"


def described(found: Frame) -> str:
    """A frame for people who read why a case failed."""
    flags = "".join(f" {flag}" for flag in sorted(found.flags))
    what = f"{type(found).__name__.removesuffix('Frame')}{flags} on {found.stream_id}"
    if isinstance(found, RstStreamFrame | GoAwayFrame):
        return f"{what}: {named(found.error_code)}"
    if isinstance(found, DataFrame):
        return f"{what}: {found.flow_controlled_length} bytes"
    return what


class Peer:
    """One connection: `async with Peer(host, port) as peer`."""

    def __init__(self, host: str, port: int, wait_s: float = WAIT_S) -> None:
        self.address = (host, port)
        self.wait_s = wait_s
        self.authority = f"{host}:{port}"
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.settings: dict[int, int] = {}  # the server's
        self.head: dict[str, str] = {}  # the last one that came whole
        self.seen: list[str] = []
        self.remark = ""  # what h2spec lets pass, and an author would like to know
        self._buffer = bytearray()
        self._block = b""
        self._ended = False

    async def __aenter__(self) -> Peer:
        try:
            async with asyncio.timeout(self.wait_s):
                await asyncio.get_running_loop().sock_connect(self.sock, self.address)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            self.sock.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sock.close()

    # ── sending ──

    async def send(self, *pieces: bytes) -> None:
        """Each piece with a write of its own."""
        loop = asyncio.get_running_loop()
        try:
            for piece in pieces:
                await loop.sock_sendall(self.sock, piece)
        except ConnectionError:
            pass

    async def handshake(self) -> None:
        """Both sides' SETTINGS, and both acknowledged: there is nothing of it left to read afterwards."""
        await self.send(PREFACE, initial_window(WINDOW))
        server, ours = False, False

        def exchanged(found: Frame | None) -> bool:
            nonlocal server, ours
            if isinstance(found, SettingsFrame):
                if "ACK" in found.flags:
                    ours = True
                else:
                    server = True
                    self.settings.update(found.settings)
            return server and ours

        await self._wait(exchanged, "SETTINGS and an acknowledgement of ours")
        await self.send(frame(SETTINGS, 0, flags=ACK))

    def fields(self, method: str = "GET", *more: tuple[str, str]) -> Fields:
        """What every request has; `more` behind it."""
        return [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", self.authority), *more]

    def block(self, fields: Iterable[tuple[str, str]]) -> bytes:
        """Compressed; has to be sent, as later ones refer to it."""
        return bytes(self.encoder.encode(fields))

    def get(self, *more: tuple[str, str], stream: int = 1, end_stream: bool = True) -> bytes:
        return headers(stream, self.block(self.fields("GET", *more)), end_stream=end_stream)

    def post(self, *more: tuple[str, str], stream: int = 1) -> bytes:
        """The head of a request with a body to come."""
        return headers(stream, self.block(self.fields("POST", *more)), end_stream=False)

    def dummy(self, size_bytes: int = 4_000, name: str = "x-dummy0") -> bytes:
        """The block of one long header."""
        return bytes(self.encoder.encode([(name, "x" * size_bytes)], huffman=False))

    @property
    def frame_bytes_max(self) -> int:
        """What the server takes."""
        return self.settings.get(SettingsFrame.MAX_FRAME_SIZE, FRAME_BYTES)

    # ── reading ──

    async def read(self) -> Frame | None:
        """The next frame; None: the server ended the connection."""
        loop = asyncio.get_running_loop()
        while (found := self._next_frame()) is None:
            if self._ended:
                left = f", {bytes(self._buffer[:80])!r} before it" if self._buffer else ""
                self.seen.append(f"the end{left}")
                return None
            try:
                piece = await loop.sock_recv(self.sock, 65_536)
            except ConnectionError:
                piece = b""
            self._ended = not piece
            self._buffer += piece
        self.seen.append(described(found))
        self._note_head(found)
        return found

    def _next_frame(self) -> Frame | None:
        if len(self._buffer) < 9:
            return None
        try:
            found, length = Frame.parse_frame_header(memoryview(bytes(self._buffer[:9])))
            if len(self._buffer) < 9 + length:
                return None
            body = bytes(self._buffer[9 : 9 + length])
            del self._buffer[: 9 + length]
            found.parse_body(memoryview(body))
        except HyperframeError as error:
            raise Unexpected(f"a malformed frame of the server's: {error!r}, after {self.seen}") from error
        return found

    def _note_head(self, found: Frame) -> None:
        if not isinstance(found, HeadersFrame | ContinuationFrame):
            return
        self._block += found.data
        if "END_HEADERS" in found.flags:
            block, self._block = self._block, b""
            try:
                self.head = {str(name): str(value) for name, value in self.decoder.decode(block)}
            except hpack.HPACKError as error:
                raise Unexpected(f"a head that cannot be decompressed: {error!r}") from error
            self.seen[-1] += f" {self.head.get(':status', 'without a status')}"

    async def _wait(self, wanted: Callable[[Frame | None], bool], what: str) -> Frame | None:
        """The first event that is wanted, others are passed over."""
        try:
            async with asyncio.timeout(self.wait_s):
                while True:
                    event = await self.read()
                    if wanted(event):
                        return event
                    if event is None:
                        break
        except TimeoutError:
            self.seen.append("nothing more in time")
        raise Unexpected(f"wanted: {what}; came: {', '.join(self.seen)}")

    # ── outcomes, as h2spec judges them ──

    async def connection_error(self, *codes: ErrorCodes) -> None:
        """GOAWAY with one of these codes, or the end of the connection."""
        await self._error(codes, streams=False)

    async def stream_error(self, *codes: ErrorCodes) -> None:
        """RST_STREAM or GOAWAY with one of these codes, or the end of the connection."""
        await self._error(codes, streams=True)

    async def _error(self, codes: tuple[ErrorCodes, ...], streams: bool) -> None:
        other = ""

        def wanted(found: Frame | None) -> bool:
            nonlocal other
            if isinstance(found, GoAwayFrame) or (streams and isinstance(found, RstStreamFrame)):
                if found.error_code in codes:
                    return True
                other = described(found)
            return found is None

        expected = " or ".join(code.name for code in codes)
        ended = await self._wait(wanted, f"{'RST_STREAM or ' * streams}GOAWAY with {expected}, or the end")
        if ended is None and other:
            self.remark = f"ended, but {other} is not {expected}"

    async def end(self) -> None:
        """The server ends the connection."""
        await self._wait(lambda found: found is None, "the end of the connection")

    async def goes_away(self, *codes: ErrorCodes) -> None:
        """GOAWAY, with one of these codes if any are given."""
        found = await self._wait(lambda found: isinstance(found, GoAwayFrame), "GOAWAY")
        if isinstance(found, GoAwayFrame) and codes and found.error_code not in codes:
            raise Unexpected(f"{described(found)}, not {codes}")

    async def reset(self, stream: int, code: ErrorCodes) -> None:
        """RST_STREAM of this stream with this code."""
        found = await self._wait(lambda found: isinstance(found, RstStreamFrame), f"RST_STREAM with {code.name}")
        if isinstance(found, RstStreamFrame) and (found.stream_id, found.error_code) != (stream, code):
            raise Unexpected(f"{described(found)}, not {code.name} on {stream}")

    async def response(self, stream: int = 1, status: str = "200") -> None:
        """The final head of an answer; h2spec takes any status: that the server refuses what it has to take is an
        answer there. An empty `status` takes any as well."""

        def wanted(found: Frame | None) -> bool:
            whole = isinstance(found, HeadersFrame | ContinuationFrame) and "END_HEADERS" in found.flags
            return whole and not self.head.get(":status", "").startswith("1")

        found = await self._wait(wanted, f"an answer on {stream}")
        if found is None or found.stream_id != stream or (status and self.head.get(":status") != status):
            raise Unexpected(f"wanted: {status} on {stream}; came: {', '.join(self.seen)}")

    async def body(self, length: int | None = None) -> None:
        """A DATA frame, of this length."""
        found = await self._wait(lambda found: isinstance(found, DataFrame), "DATA")
        if isinstance(found, DataFrame) and length is not None and found.flow_controlled_length != length:
            raise Unexpected(f"{described(found)}, not {length}")

    async def stream_end(self) -> None:
        """The server is done with the stream."""

        def wanted(found: Frame | None) -> bool:
            if isinstance(found, RstStreamFrame):
                return found.error_code == ErrorCodes.NO_ERROR
            return isinstance(found, DataFrame | HeadersFrame) and "END_STREAM" in found.flags

        await self._wait(wanted, "the end of the stream")

    async def settings_ack(self) -> None:
        found = await self._wait(lambda found: isinstance(found, SettingsFrame), "SETTINGS with ACK")
        if found is None or "ACK" not in found.flags:
            raise Unexpected("SETTINGS without ACK")

    async def first_settings(self) -> None:
        """The very first frame is SETTINGS, and no acknowledgement."""
        found = await self._wait(lambda _: True, "a first frame")
        if not isinstance(found, SettingsFrame) or "ACK" in found.flags:
            raise Unexpected(f"wanted: SETTINGS first; came: {self.seen[0]}")

    async def pong(self, payload: bytes, *, or_end: bool = False) -> None:
        """The first PING that comes is the answer to ours; `or_end`: or the connection ends."""
        found = await self._wait(
            lambda found: isinstance(found, PingFrame) or (or_end and found is None),
            f"PING with ACK{' or the end' * or_end}",
        )
        if isinstance(found, PingFrame) and ("ACK" not in found.flags or found.opaque_data != payload):
            raise Unexpected(f"{described(found)} with {found.opaque_data!r}, not {payload!r}")

    async def goes_on(self, *, or_end: bool = False) -> None:
        """The connection works: PING is answered."""
        await self.send(ping(b"goes on?"))
        await self.pong(b"goes on?", or_end=or_end)

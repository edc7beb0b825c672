"""A client of HTTP/2: sends the requests it is given, sound or not, and reads answers strictly (package h2).

Invariants: an answer that breaks RFC 9113 fails the test; windows open by themselves only while `opens`; nothing is
retried or followed; all addresses are loopback. GOAWAY is noted here and kept from h2, which would read nothing behind
it.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes, Settings

from tests.e2e.support import SLOW

GOAWAY, RST_STREAM, WINDOW_UPDATE = 7, 3, 8
Field = tuple[str | bytes, str | bytes]


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """Any frame at all."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


@dataclass
class Answer:
    """What came on a stream."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    interim: list[list[tuple[str, str]]] = field(default_factory=list)
    trailers: list[tuple[str, str]] | None = None
    ended: bool = False
    reset: int | None = None  # error code of RST_STREAM

    @property
    def status(self) -> int:
        return int(self.one(":status") or 0)

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each == name]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None


class Wire2:
    """One connection. `before`: bytes ahead of the preface; `settings`: the client's; `receive_bytes`: of its socket;
    `tls`: a context, for `name`."""

    def __init__(
        self,
        port: int,
        *,
        source: str | None = None,
        timeout_s: float = 10.0 * SLOW,
        settings: dict[int, int] | None = None,
        opens: bool = True,
        before: bytes = b"",
        receive_bytes: int = 0,
        tls: ssl.SSLContext | None = None,
        name: str = "site.test",
        begin: bool = True,
    ) -> None:
        assert source is None or ipaddress.ip_address(source).is_loopback
        self.timeout_s = timeout_s
        self.opens = opens
        self.scheme = "https" if tls else "http"
        self.sock: socket.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if receive_bytes:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            self.sock.settimeout(timeout_s)
            if source is not None:
                self.sock.bind((source, 0))
            self.sock.connect(("127.0.0.1", port))
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self.sock = tls.wrap_socket(self.sock, server_hostname=name)
        except OSError:
            self.sock.close()
            raise
        self.h2 = H2Connection(
            H2Configuration(
                header_encoding="latin-1", validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self.h2.local_settings = Settings(client=True, initial_values={SettingCodes.ENABLE_PUSH: 0, **(settings or {})})
        self.answers: dict[int, Answer] = {}
        self.ends: list[int] = []  # streams in the order in which they were over
        self.goaways: list[tuple[int, int]] = []  # last stream, error code
        self.server: dict[int, int] = {}  # its settings
        self.broken = False
        self.closed = ""  # how the connection ended: "closed", "reset"
        self.data = b""
        self.pongs = 0
        if begin:
            self.h2.initiate_connection()
            self.raw(before)
            self.flush()

    def __enter__(self) -> Wire2:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    # ── out ──

    def raw(self, data: bytes) -> None:
        """Bytes as they are; a write into a closed connection is no error, the next read tells."""
        try:
            self.sock.sendall(data)
        except (ConnectionError, ssl.SSLError):
            self.broken = True  # told once: the next read would say that it ended in order

    def flush(self) -> None:
        self.raw(self.h2.data_to_send())

    def fields(self, path: str = "/", method: str = "GET", host: str = "site.test") -> list[Field]:
        """What every request has."""
        return [(":method", method), (":scheme", self.scheme), (":authority", host), (":path", path)]

    def ask(self, fields: Iterable[Field], *, end: bool = True, flush: bool = True) -> int:
        """A field section on a new stream; which one. `flush`: at once, instead of with what comes next."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, list(fields), end_stream=end)
        self.answers[stream] = Answer()
        if flush:
            self.flush()
        return stream

    def request(
        self,
        path: str = "/",
        method: str = "GET",
        headers: Sequence[Field] = (),
        *,
        host: str = "site.test",
        body: bytes | None = None,
        end: bool = True,
    ) -> int:
        """`body` goes at once, as far as windows let it, the rest while reading."""
        stream = self.ask([*self.fields(path, method, host), *headers], end=end and body is None)
        if body is not None:
            self.send(stream, body, end=end)
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False, wait: bool = True) -> int:
        """DATA; bytes that went. `wait`: until windows let all of it pass, or the stream is over."""
        at = 0
        while at < len(data) or (end and not at):
            if self.answers[stream].over or self.closed:
                break
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(data) - at)
            if room <= 0 and data:
                if not wait:
                    break
                self.more()
                continue
            self.h2.send_data(stream, data[at : at + room], end_stream=end and at + room == len(data))
            self.flush()
            at += room
            if not data:
                break
        return at

    def reset(self, stream: int, code: int = 8) -> None:
        self.h2.reset_stream(stream, code)
        self.flush()

    def open(self, count: int, stream: int | None = None) -> None:
        """Widen a stream's window, or the connection's."""
        if stream is not None and self.answers[stream].over:
            return
        self.h2.increment_flow_control_window(count, stream)
        self.flush()

    # ── in ──

    def more(self, timeout_s: float | None = None) -> bool:
        """What the next read brings. False: nothing in that time, or no more."""
        if self.closed:
            return False
        self.sock.settimeout(self.timeout_s if timeout_s is None else max(timeout_s, 0.001))
        try:
            piece = self.sock.recv(262144)
        except TimeoutError:
            if timeout_s is None:
                raise
            return False
        except (ConnectionError, ssl.SSLError):
            self.closed = "reset"
            return False
        finally:
            self.sock.settimeout(self.timeout_s)
        if not piece:
            self.closed = "reset" if self.broken else "closed"
            return False
        self.data += piece
        self._frames()
        self.flush()
        return True

    def _frames(self) -> None:
        """Whole frames to h2, GOAWAYs aside."""
        at, given = 0, b""
        while len(self.data) - at >= 9:
            length = int.from_bytes(self.data[at : at + 3])
            if len(self.data) - at < 9 + length:
                break
            whole = self.data[at : at + 9 + length]
            at += 9 + length
            if whole[3] == GOAWAY:
                last, code = struct.unpack(">II", whole[9:17])
                self.goaways.append((last, code))
            else:
                given += whole
        self.data = self.data[at:]
        for event in self.h2.receive_data(given) if given else ():
            self._event(event)

    def _event(self, event: Event) -> None:
        if isinstance(event, RemoteSettingsChanged):
            self.server.update({int(code): change.new_value for code, change in event.changed_settings.items()})
            return
        if isinstance(event, PingAckReceived):
            self.pongs += 1
            return
        answer = self.answers.get(getattr(event, "stream_id", None) or 0)
        if answer is None:
            return
        if isinstance(event, InformationalResponseReceived):
            answer.interim.append([(str(n), str(v)) for n, v in event.headers])
        elif isinstance(event, ResponseReceived):
            assert not answer.headers, "a second head"
            answer.headers = [(str(n), str(v)) for n, v in event.headers]
        elif isinstance(event, TrailersReceived):
            answer.trailers = [(str(n), str(v)) for n, v in event.headers]
        elif isinstance(event, DataReceived):
            answer.body += event.data
            if self.opens:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            answer.ended = True
            self.ends.append(event.stream_id)
        elif isinstance(event, StreamReset) and event.remote_reset:
            if answer.reset is None:
                answer.reset = int(event.error_code)
            if not answer.ended:
                self.ends.append(event.stream_id)

    def until(self, holds: Callable[[], object], what: str = "") -> None:
        """Read until that is so."""
        end = time.monotonic() + self.timeout_s
        while not holds():
            assert not self.closed, f"{self.closed} before {what or holds}; GOAWAY {self.goaways}"
            assert self.more(end - time.monotonic()) or time.monotonic() < end, f"not in time: {what or holds}"

    def quiet(self, for_s: float = 0.1) -> None:
        """Read until nothing comes for a time."""
        while self.more(for_s):
            pass

    def answer(self, stream: int) -> Answer:
        """The answer, once its stream is over; `reset` of one that the end of the connection cut is -1."""
        found = self.answers[stream]
        while not found.over and not self.closed:
            self.more()
        if not found.over:
            found.reset = -1
        return found

    def get(self, path: str = "/", headers: Sequence[Field] = (), *, host: str = "site.test") -> Answer:
        """One GET, and its answer."""
        return self.answer(self.request(path, headers=headers, host=host))

    def alive(self) -> bool:
        """PING is answered."""
        before = self.pongs
        self.raw(frame(6, 0, b"goes on?"))
        while self.pongs == before and not self.closed:
            self.more()
        return self.pongs > before

    def over(self) -> str:
        """Read to the end of the connection: "closed", "reset"."""
        while not self.closed:
            self.more()
        return self.closed


def window(count: int) -> dict[int, int]:
    """A client's settings with that window for each stream."""
    return {int(SettingCodes.INITIAL_WINDOW_SIZE): count}

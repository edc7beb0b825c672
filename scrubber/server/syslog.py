"""Messages to a syslog receiver: a Unix socket (datagram, else stream), UDP, TCP with octet counting (RFC 6587).

Owns: the connection, what waits for it, what was lost and why. Used by one thread at a time. Invariants: nothing here
waits for the receiver; what waits is bounded in bytes; every message is sent whole, or counted as lost. (What the
kernel had taken when a TCP connection broke may be lost without anybody's knowledge: syslog has no acknowledgement.)
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import time
from collections import deque
from collections.abc import Sequence

from scrubber.config.log import Target
from scrubber.server.trouble import Trouble

WAITING_BYTES_MAX = 4 << 20
SEND_BYTES_MAX = 1 << 20  # a look: other destinations get their turn
END_S = 0.5
STEP_S = 0.05
RETRY_S = 0.1
RETRY_S_MAX = 5.0


class Syslog:
    """A destination: see scrubber.server.access_log.Sink."""

    def __init__(self, target: Target, logger: logging.Logger) -> None:
        self.name = str(target)
        self.lines = 0  # handed to the kernel
        self.lines_lost = 0
        self.error = ""
        self._target = target
        self._log = logger
        self._sock: socket.socket | None = None
        self._stream = target.kind == "syslog_tcp"
        self._connecting = False
        self._waiting: deque[bytes] = deque()  # framed
        self._waiting_bytes = 0
        self._sent = 0  # bytes of the first one that are out
        self._retry_s = RETRY_S
        self._retry_at = 0.0
        self._trouble = Trouble()

    @property
    def waiting(self) -> int:
        """Messages that the receiver has not taken yet."""
        return len(self._waiting)

    def write(self, messages: Sequence[bytes]) -> None:
        """Send these; what the receiver does not take now waits, what has no room there is lost."""
        for message in messages:
            if self._waiting_bytes + len(message) > WAITING_BYTES_MAX:
                self._lose(1, self.error or "its receiver is too slow")
                continue
            self._waiting.append(message)
            self._waiting_bytes += len(message)
        self.flush()

    def append(self, data: bytes, lines: int) -> None:
        """Send each of these lines, as it stands."""
        self.write(data.split(b"\n")[:lines])

    def flush(self) -> None:
        """Try again to send what waits. Called even where there is nothing new."""
        if self._sock is None and (not self._waiting or time.monotonic() < self._retry_at or not self._connect()):
            return
        if self._connecting and not self._connected():
            return
        if self._stream and self._ended_by_receiver():
            return
        self._send_waiting()

    def reopen(self) -> None:
        """Nothing to open anew: receivers are connected to again whenever they went away."""

    def close(self) -> None:
        """A last try, END_S at most; what then still waits is lost."""
        end = time.monotonic() + END_S
        self._retry_at = 0.0
        while self._waiting:
            self.flush()
            if not self._waiting or self._sock is None or time.monotonic() >= end:
                break
            select.select([], [self._sock], [], STEP_S)
        if self._waiting:
            self._lose(len(self._waiting), self.error or "it ended before its receiver took them")
            self._clear()
        self._drop("")

    # ── the connection ──

    def _connect(self) -> bool:
        kinds = [socket.SOCK_STREAM] if self._target.kind == "syslog_tcp" else [socket.SOCK_DGRAM]
        if self._target.kind == "syslog_unix":
            kinds.append(socket.SOCK_STREAM)
        for kind in kinds:
            sock: socket.socket | None = None
            try:
                sock, where = self._socket(kind)
                sock.setblocking(False)
                code = sock.connect_ex(where)
            except OSError as error:
                code = error.errno or errno.EIO
            if code in (0, errno.EINPROGRESS) and sock is not None:
                self._sock, self._stream = sock, kind == socket.SOCK_STREAM
                self._connecting = code == errno.EINPROGRESS
                return True
            if sock is not None:
                sock.close()
            if code != errno.EPROTOTYPE:  # there is a socket, of the other kind
                break
        self._failed(code)
        return False

    def _socket(self, kind: int) -> tuple[socket.socket, str | tuple[str, int]]:
        target = self._target
        if target.kind == "syslog_unix":
            return socket.socket(socket.AF_UNIX, kind), target.address
        family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
        return socket.socket(family, kind), (target.address, target.port)

    def _connected(self) -> bool:
        """Whether the connection has come about; where it failed, it is tried again later."""
        assert self._sock is not None
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._failed(code)
            return False
        try:
            self._sock.getpeername()
        except OSError:
            return False
        self._connecting = False
        return True

    def _ended_by_receiver(self) -> bool:
        """A closed connection takes messages without a word: asked before each send."""
        assert self._sock is not None
        try:
            while data := self._sock.recv(4096):
                del data  # receivers have nothing to say
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._failed(error.errno or errno.EIO)
            return True
        self._failed(errno.ECONNRESET)
        return True

    def _failed(self, code: int) -> None:
        self._drop(os.strerror(code))
        self._retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, RETRY_S_MAX)

    def _drop(self, why: str) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock, self._connecting, self._sent = None, False, 0  # a message that was begun is sent whole again
        if why:
            self.error = why

    # ── sending ──

    def _send_waiting(self) -> None:
        budget = SEND_BYTES_MAX
        while self._waiting and self._sock is not None and budget > 0:
            frame = self._frame(self._waiting[0])
            try:
                sent = self._sock.send(memoryview(frame)[self._sent :])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if not self._send_failed(error.errno or errno.EIO):
                    return
                continue
            budget -= sent
            self._sent += sent
            if self._sent >= len(frame):
                self._taken()
                self.lines += 1
                self.error, self._retry_s = "", RETRY_S

    def _send_failed(self, code: int) -> bool:
        """Whether to go on with the next message."""
        if code in (errno.ENOBUFS, errno.EAGAIN):
            return False
        if not self._stream and code == errno.EMSGSIZE:
            self._taken()
            self._lose(1, "longer than its transport carries")
            return True
        if self._target.kind == "syslog_udp" and code == errno.ECONNREFUSED:
            self._lose(1, os.strerror(code))  # of the message before: nobody listened
            self.lines = max(self.lines - 1, 0)
        self._failed(code)
        return False

    def _frame(self, message: bytes) -> bytes:
        if not self._stream:
            return message
        if self._target.kind == "syslog_tcp":
            return b"%d %b" % (len(message), message)
        return message + b"\n"  # local stream sockets are read by lines

    def _taken(self) -> None:
        self._waiting_bytes -= len(self._waiting.popleft())
        self._sent = 0

    def _clear(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0

    def _lose(self, count: int, why: str) -> None:
        self.lines_lost += count
        self.error = why
        if lost := self._trouble.tell(count, time.monotonic()):
            self._log.error("log to %s: %s; %d lines lost", self.name, why, lost)

"""One end of the socket pair between the keeper and a child: JSON messages, with descriptors beside them.

Owns: framing (one SOCK_SEQPACKET message each), the limits, and that no descriptor leaks: what came with a refused
message is closed.
Invariants: nothing here blocks (but `wait`, for a child's first message); a peer that does not read is an error,
never a stall.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MESSAGE_BYTES_MAX = 64 * 1024
FDS_MAX = 253  # SCM_MAX_FD
_FD_BYTES = 4

Message = dict[str, Any]


class ChannelError(Exception):
    """The peer broke the protocol: not JSON, no type, too large, too many descriptors."""


class ChannelClosed(ChannelError):
    """The peer is gone."""


class ChannelFull(ChannelError):
    """The peer does not read: its queue holds all it may."""


@dataclass(slots=True)
class Received:
    """A message and the descriptors that came with it, which are now the receiver's."""

    message: Message
    fds: list[int] = field(default_factory=list)

    @property
    def type(self) -> str:
        return str(self.message["type"])

    def close(self) -> None:
        """Give the descriptors up."""
        while self.fds:
            os.close(self.fds.pop())


class Channel:
    """Non-blocking, for one thread. `fileno()` goes into a selector or a loop."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.set_inheritable(False)
        self._sock = sock
        self._buffer = bytearray(MESSAGE_BYTES_MAX + 1)  # made now: later there may be no memory for one

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        """Take over an inherited descriptor. OSError: it is not a socket."""
        return cls(socket.socket(fileno=fd))

    @staticmethod
    def pair() -> tuple[Channel, socket.socket]:
        """Our end, and the raw other end to be inherited by a child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return Channel(ours), theirs

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Queue one message. The descriptors stay the sender's. ChannelFull, ChannelClosed, ChannelError (too
        large)."""
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > MESSAGE_BYTES_MAX or len(fds) > FDS_MAX:
            raise ChannelError(f"message too large: {len(data)} bytes, {len(fds)} descriptors")
        try:
            if fds:
                socket.send_fds(self._sock, [data], list(fds))
            else:
                self._sock.send(data)
        except BlockingIOError:
            raise ChannelFull("the peer does not read its channel") from None
        except OSError as error:
            raise ChannelClosed(str(error)) from None

    def receive(self) -> Received | None:
        """The next message; None: none now. ChannelClosed at the end, ChannelError for what is no message."""
        try:
            size, ancillary, flags, _ = self._sock.recvmsg_into(
                [self._buffer], socket.CMSG_SPACE(FDS_MAX * _FD_BYTES), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelClosed(str(error)) from None
        received = Received({}, _descriptors(ancillary))
        if not size:
            received.close()
            raise ChannelClosed("the peer is gone")
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ChannelError("a message arrived cut short")
            received.message = _decode(bytes(memoryview(self._buffer)[:size]))
        except ChannelError:
            received.close()
            raise
        return received

    def wait(self, timeout_s: float) -> Received:
        """The next message, waiting for it: for a child's start only. ChannelError when none comes in time."""
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        poller.poll(timeout_s * 1000)
        received = self.receive()
        if received is None:
            raise ChannelError(f"no message within {timeout_s:g} s")
        return received


def _decode(data: bytes) -> Message:
    try:
        message = json.loads(data)
    except ValueError as error:
        raise ChannelError(f"not JSON: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ChannelError("a message is an object with a type")
    return message


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(data) - len(data) % _FD_BYTES
            fds.extend(int.from_bytes(data[i : i + _FD_BYTES], "little") for i in range(0, whole, _FD_BYTES))
    return fds

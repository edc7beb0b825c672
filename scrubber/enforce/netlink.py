"""Routing netlink where pyroute2 is too slow or needs a loop of its own: packed bulk changes of routes, exact dumps,
a monitor that hears of others only.

Owns the sockets, and the layout of route messages; links, rules and questions are encoded by pyroute2's message
classes. Invariants: a route is made only where none is (NLM_F_EXCL) and deleted only with our protocol number, so that
another's is neither replaced nor removed; a dump that the kernel calls inconsistent is asked for again. Needs Linux
4.20 (strict dumps).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pyroute2.netlink.rtnl.fibmsg import fibmsg

from scrubber.enforce.backend import ROUTE_PROTO, Unavailable
from scrubber.enforce.net import Net

# linux/netlink.h, linux/rtnetlink.h, asm-generic/socket.h: what Python and pyroute2 do not name.
SOL_NETLINK = 270
NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK = 10, 12
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN = 2, 3, 4
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x4, 0x10, 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTN_UNICAST, RTN_ANYCAST = 1, 4
GROUPS = 0x1 | 0x40 | 0x80 | 0x400 | 0x40000  # links, IPv4 routes and rules, IPv6 routes and rules
IFF_UP = 1

_SCOPE_LINK, _SCOPE_NOWHERE = 253, 255
_RTA_DST, _RTA_OIF, _RTA_TABLE = 1, 4, 15
_TABLE_COMPAT = 252  # what the one byte of a route message says for tables above 255

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ROUTE = struct.Struct("=8BI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER_ATTRIBUTE = struct.Struct("=HHI")
_BODY = _HEADER.size
_ATTRIBUTES = _BODY + _ROUTE.size

BATCH_MAX = 512  # messages a send
ANSWER_BYTES = 1024  # what the kernel charges our buffer for one error, and a bit
BUFFER_BYTES = 4 << 20
READ_BYTES = 1 << 16  # the kernel fills 32 KiB of a dump at once
ANSWER_WITHIN_S = 30.0
DUMPS_MAX = 16  # a table that changes during each of so many dumps is reported, not guessed

Message = tuple[int, int, int, int, bytes]  # type, flags, sequence, port, body


class Netlink:
    """A socket for questions and changes. Blocking; of the network namespace in which it was made."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"no routing netlink: {error.strerror}") from error
        try:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
            self._socket.bind((0, 0))
        except OSError as error:
            self._socket.close()
            raise Unavailable(f"this kernel filters no dumps (Linux 4.20 does): {error.strerror}") from error
        self._socket.settimeout(ANSWER_WITHIN_S)
        # More answers than fit are lost, and with them which change failed: so much at once that all fit.
        self.batch = max(1, min(BATCH_MAX, grow(self._socket) // ANSWER_BYTES))
        self.port: int = self._socket.getsockname()[0]
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def change(self, make: RouteMaker, nets: Sequence[Net]) -> dict[Net, int]:
        """Send what `make` makes of each. Returns errno of those that the kernel refused."""
        refused: dict[Net, int] = {}
        for start in range(0, len(nets), self.batch):
            part = nets[start : start + self.batch]
            first = self._numbers(len(part))
            last = first + len(part) - 1
            message = make.message
            try:
                self._socket.send(
                    b"".join([message(net, first + at, at == len(part) - 1) for at, net in enumerate(part)])
                )
                for number, code in self._errors(first, last):
                    if code:
                        refused[part[number - first]] = code
            except OSError as error:  # nobody knows what became of them: the next dump does
                refused.update(dict.fromkeys(part, error.errno or errno.ETIMEDOUT))
        return refused

    def _errors(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Answers to these numbers, until that to the last, which always comes."""
        while True:
            for kind, _, number, _, body in messages(self._socket.recv(READ_BYTES)):
                if kind == NLMSG_ERROR and first <= number <= last:
                    yield number, -struct.unpack_from("=i", body)[0]
                    if number == last:
                        return

    def ask(self, kind: int, message: Any, flags: int = 0) -> list[bytes]:
        """One message of pyroute2's, good for one time; its answers' bodies (a dump where `flags` say so). OSError:
        what the kernel says against it."""
        body = _encoded(message)
        for _ in range(DUMPS_MAX):
            found = self._ask(kind, body, flags)
            if found is not None:
                return found
        raise OSError(errno.EAGAIN, "the table changed during every dump")

    def held(self, table: int, family: int) -> set[Net]:
        """The networks that have a route of our protocol in that table. Exact if nobody changes it meanwhile: no
        dump of routes is ever marked as inconsistent."""
        head = _ROUTE.pack(family, 0, 0, 0, _short(table), ROUTE_PROTO, 0, 0, 0)
        body = head + _NUMBER_ATTRIBUTE.pack(8, _RTA_TABLE, table)
        for _ in range(DUMPS_MAX):
            try:
                found = self._ask(RTM_GETROUTE, body, NLM_F_DUMP)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):  # no such table yet, no IPv6
                    return set()
                raise
            if found is not None:
                return {_destination(body) for body in found}
        raise OSError(errno.EAGAIN, "the table changed during every dump")

    def _ask(self, kind: int, body: bytes, flags: int) -> list[bytes] | None:
        """None: it changed while it was read."""
        sequence = self._numbers(1)
        wanted = NLM_F_REQUEST | (flags if flags & NLM_F_DUMP == NLM_F_DUMP else flags | NLM_F_ACK)
        self._socket.send(_HEADER.pack(_BODY + len(body), kind, wanted, sequence, 0) + body)
        found: list[bytes] = []
        whole = True
        while True:
            for what, marks, number, _, answer in messages(self._socket.recv(READ_BYTES)):
                if number != sequence:
                    continue
                whole = whole and not marks & NLM_F_DUMP_INTR
                if what in (NLMSG_ERROR, NLMSG_DONE):
                    code = -struct.unpack_from("=i", answer)[0]
                    if code > 0:
                        raise OSError(code, os.strerror(code))
                    return found if whole else None
                found.append(answer)

    def _numbers(self, count: int) -> int:
        """The first of so many sequence numbers that no answer still under way carries."""
        if self._sequence + count >= 1 << 32:
            self._sequence = 0
        first = self._sequence + 1
        self._sequence += count
        return first


class RouteMaker:
    """Route messages that differ in the network alone: what is the same in all is packed once."""

    def __init__(self, kind: int, table: int, *, oif: int = 0, v4_type: int = RTN_UNICAST) -> None:
        making = kind == RTM_NEWROUTE
        flags = NLM_F_REQUEST | (NLM_F_CREATE | NLM_F_EXCL if making else 0)
        tail = _NUMBER_ATTRIBUTE.pack(8, _RTA_TABLE, table)
        if making:
            tail += _NUMBER_ATTRIBUTE.pack(8, _RTA_OIF, oif)
        # Deleting names no type and no device: whatever carries our protocol goes.
        scope = _SCOPE_LINK if making else _SCOPE_NOWHERE
        self._parts = {}
        for family, address, of_type in ((socket.AF_INET, 4, v4_type), (socket.AF_INET6, 16, RTN_UNICAST)):
            length = _ATTRIBUTES + _ATTRIBUTE.size + address + len(tail)
            plain, last = (_HEADER.pack(length, kind, each, 0, 0)[:8] for each in (flags, flags | NLM_F_ACK))
            route = _ROUTE.pack(family, 0, 0, 0, _short(table), ROUTE_PROTO, scope, of_type if making else 0, 0)
            middle = route[2:] + _ATTRIBUTE.pack(4 + address, _RTA_DST)
            # Header without and with ACK; what goes between number and prefix length; from there to the address; rest.
            self._parts[address] = plain, last, bytes(4) + route[:1], middle, tail

    def message(self, net: Net, number: int, last: bool) -> bytes:
        """For that network; the last one of a batch is always answered, the others where they fail."""
        plain, with_ack, port_and_family, middle, tail = self._parts[len(net) - 1]
        head = with_ack if last else plain
        return b"".join((head, number.to_bytes(4, sys.byteorder), port_and_family, net[-1:], middle, net[:-1], tail))


class Monitor:
    """Says when another than us touched a table, a rule that looks it up, or a device. The kernel leaves out what the
    socket `own` did and routes of other tables, so that neither our bulk nor a router's full feed floods it."""

    def __init__(self, own: int, tables: Sequence[int]) -> None:
        self._tables = frozenset(tables)
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        try:
            attach(self._socket, others_only(own, {_short(table) for table in tables}))
            grow(self._socket)
            self._socket.bind((0, GROUPS))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def disturbed(self, device: int) -> bool:
        """Reads all there is. `device`: by index, also ours."""
        found = False
        while True:
            try:
                data = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True  # something was lost
                continue
            found = found or any(self._ours(kind, body, device) for kind, _, _, _, body in messages(data))

    def _ours(self, kind: int, body: bytes, device: int) -> bool:
        if kind in (RTM_NEWLINK, RTM_DELLINK):
            index, flags = struct.unpack_from("=4xiI", body)
            return bool(index == device and (kind == RTM_DELLINK or not flags & IFF_UP))
        if kind in (RTM_NEWROUTE, RTM_DELROUTE):
            return _table_of(body) in self._tables
        if kind in (RTM_NEWRULE, RTM_DELRULE):
            return decoded(fibmsg, body).get("table") in self._tables
        return kind == NLMSG_OVERRUN


def messages(data: bytes) -> Iterator[Message]:
    """Those in what one recv gave."""
    at, end = 0, len(data)
    while end - at >= _BODY:
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, at)
        if not _BODY <= length <= end - at:
            return
        yield kind, flags, sequence, port, data[at + _BODY : at + length]
        at += (length + 3) & ~3


def decoded(of: Callable[[bytes], Any], body: bytes) -> Any:
    """A body as pyroute2's message class of that name reads it."""
    message = of(_HEADER.pack(_BODY + len(body), 0, 0, 0, 0) + body)
    message.decode()
    return message


def _encoded(message: Any) -> bytes:
    message.encode()
    return bytes(message.data[_BODY:])


def _short(table: int) -> int:
    return table if table < 256 else _TABLE_COMPAT


def _attribute(body: bytes, wanted: int) -> bytes:
    """Of a route message; empty: it has none such."""
    at, end = _ROUTE.size, len(body)
    while end - at >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if kind == wanted:
            return body[at + 4 : at + length]
        if length < _ATTRIBUTE.size:
            break
        at += (length + 3) & ~3
    return b""


def _destination(body: bytes) -> Net:
    """The network of a route message; 0/0 has no attribute."""
    address = _attribute(body, _RTA_DST) or bytes(4 if body[0] == socket.AF_INET else 16)
    return address + body[1:2]


def _table_of(body: bytes) -> int:
    number = _attribute(body, _RTA_TABLE)
    return struct.unpack("=I", number)[0] if number else body[4]


def grow(of: socket.socket) -> int:
    """As large a receive buffer as may be. Returns its size."""
    try:
        of.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    except PermissionError:  # in a user namespace
        of.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    return of.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def others_only(own: int, tables: set[int]) -> bytes:
    """Classic BPF over a netlink message: nothing that the port `own` caused; of routes only those whose table byte is
    one of these."""
    ld, ldh, ldb, jeq, ja, ret = 0x20, 0x28, 0x30, 0x15, 0x05, 0x06
    program: list[tuple[int, int, int, int]] = [
        (ld, 0, 0, 12),  # the port; BPF loads big-endian what the kernel wrote in its own order
        (jeq, 0, 1, socket.htonl(own)),
        (ret, 0, 0, 0),
        (ldh, 0, 0, 4),  # the type
        (jeq, 2, 0, socket.htons(RTM_NEWROUTE)),
        (jeq, 1, 0, socket.htons(RTM_DELROUTE)),
        (ja, 0, 0, 2 + len(tables)),
        (ldb, 0, 0, _BODY + 4),  # the table
    ]
    wanted = sorted(tables)
    program += [(jeq, len(wanted) - at, 0, table) for at, table in enumerate(wanted)]
    program += [(ret, 0, 0, 0), (ret, 0, 0, 0xFFFFFFFF)]
    return b"".join(struct.pack("=HBBI", *each) for each in program)


def attach(to: socket.socket, program: bytes) -> None:
    """Let only those messages in for which the program returns something."""
    held = ctypes.create_string_buffer(program, len(program))
    to.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(held)))

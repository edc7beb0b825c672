"""What the kernel says about nftables, read from netlink itself: whose a table is, what a set holds, who changed what.

Owns two sockets of the namespace that they were made in, and the form of the messages. Changes nothing: changes go
through libnftables (nft.py). Read here and not there because a listing through libnftables takes three times as long,
gives times in whole seconds, and does not say when it was torn by a change.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

FAMILIES = {"inet": 1, "netdev": 5}
NETFILTER = 12  # the protocol of its netlink sockets

_SUBSYSTEM = 10 << 8
_GET_TABLE, _GET_SET, _GET_ELEMENTS, _GET_GENERATION = 1, 10, 13, 16
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP, _TORN = 0x1, 0x300, 0x10
_GROUP_NFTABLES = 7
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_MONITOR_BYTES = 1 << 20  # of others' changes that wait to be read
_PAGE_BYTES = 1 << 16  # a page of a dump has 32 KiB
_WAIT_S = 5.0
_NESTED_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ABOUT = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")
_START = _HEADER.size + _ABOUT.size


class Element(NamedTuple):
    """One of a set. `left_ms` counts from when the dump was asked for; None: it has no end."""

    left_ms: int | None
    packets: int
    bytes: int


class Dump(NamedTuple):
    """Elements by key, and at which generation of the ruleset. `sound`: no change and no second sight of an element
    hints that others were passed over."""

    elements: dict[bytes, Element]
    generation: int
    sound: bool


class Reader:
    """Asks. OSError: what the kernel says instead of an answer."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER)
        self._socket.settimeout(_WAIT_S)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def probe(self) -> None:
        """OSError: there is no nf_tables here, or it is not ours to ask."""
        self._ask(_GET_GENERATION, "inet", b"", 0)

    def comment(self, family: str, table: str) -> str | None:
        """Of a table: empty where it has none. None: there is no such table."""
        try:
            answer = self._ask(_GET_TABLE, family, _text(1, table), 0)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        for kind, start, end in _attributes(answer, _START, len(answer)):
            if kind == 6:  # user data: kind, length, text with its NUL
                data = answer[start:end]
                if len(data) > 2 and data[0] == 0:
                    return data[2 : 2 + data[1]].rstrip(b"\0").decode(errors="replace")
        return ""

    def sets(self, family: str, table: str) -> list[str]:
        """Names of the sets of a table."""
        found = []
        for page in self._dump(_GET_SET, family, _text(1, table)):
            for at, size in _messages(page):
                for kind, start, end in _attributes(page, at + _START, at + size):
                    if kind == 2:
                        found.append(page[start : end - 1].decode())
        return found

    def elements(self, family: str, table: str, name: str) -> Dump:
        """Of one set. What is said is there, but a dump may leave some out: between two pages the kernel finds its
        place again by counting, and the table may have been rehashed meanwhile (seen after 100,000 were put: 7 % left
        out, as many said twice, so twice is the sign of it), or swept of what is over (no sign)."""
        found: dict[bytes, Element] = {}
        seen = 0
        generation, torn = 0, False
        asked_s = time.monotonic()
        read = _Elements()
        for page in self._dump(_GET_ELEMENTS, family, _text(1, table) + _text(2, name)):
            late_ms = round(1000 * (time.monotonic() - asked_s))
            for at, size in _messages(page):
                torn = torn or bool(_HEADER.unpack_from(page, at)[2] & _TORN)
                generation = _ABOUT.unpack_from(page, at + _HEADER.size)[2]
                for kind, start, end in _attributes(page, at + _START, at + size):
                    if kind == 3:
                        seen += read.into(found, page, start, end, late_ms)
        return Dump(found, generation, not torn and seen == len(found))

    def _ask(self, what: int, family: str, body: bytes, flags: int) -> bytes:
        """The answer's one message."""
        self._send(what, family, body, flags)
        answer = self._next()
        _raise_error(answer, 0)
        return answer

    def _dump(self, what: int, family: str, body: bytes) -> Iterator[bytes]:
        self._send(what, family, body, _DUMP)
        while True:
            page = self._next()
            yield page
            if _ends(page):
                return

    def _send(self, what: int, family: str, body: bytes, flags: int) -> None:
        self._sequence += 1
        about = _ABOUT.pack(FAMILIES[family], 0, 0)
        size = _HEADER.size + len(about) + len(body)
        head = _HEADER.pack(size, _SUBSYSTEM | what, _REQUEST | flags, self._sequence, 0)
        self._socket.send(head + about + body)

    def _next(self) -> bytes:
        """The next page that answers the last question; what an earlier one left unread is passed over."""
        while True:
            page = self._socket.recv(_PAGE_BYTES)
            if _HEADER.unpack_from(page)[3] == self._sequence:
                return page


class Monitor:
    """Hears of changes to rulesets, made by others than the socket with `own_port`."""

    def __init__(self, own_port: int) -> None:
        self._own_port = own_port
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETFILTER
        )
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _MONITOR_BYTES)
        self._leave_out(own_port)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def touched(self, family: str, table: str) -> bool:
        """Reads all that waits: whether any is about this table, or some was lost."""
        found = False
        name = _text(1, table)
        while True:
            try:
                page = self._socket.recv(_PAGE_BYTES)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True
                continue
            for at, _ in _messages(page):
                about = at + _HEADER.size
                ours = page[about] == FAMILIES[family] and page.startswith(name, at + _START)
                found = found or (ours and _HEADER.unpack_from(page, at)[4] != self._own_port)

    def _leave_out(self, port: int) -> None:
        """Our own bulk changes would fill the socket: the kernel drops messages that carry our port id (a filter of
        classic BPF: load it, compare, take nothing or all)."""
        wanted = int.from_bytes(port.to_bytes(4, sys.byteorder), "big")  # BPF loads in network order
        steps = ((0x20, 0, 0, 12), (0x15, 0, 1, wanted), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
        program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
        filter_of = struct.pack("HP", len(steps), ctypes.addressof(program))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_of)


class _Elements:
    """Reads elements of one set. They look alike: one is walked, the next are held against it and their numbers taken
    from the same places, several times as fast; one of another shape is walked again."""

    def __init__(self) -> None:
        self._whole = struct.Struct("")
        self._fixed: tuple[bytes, ...] = ()

    def into(self, found: dict[bytes, Element], page: bytes, start: int, end: int, late_ms: int) -> int:
        """Those of one message; how many they were."""
        count, at = 0, start
        while at < end:
            size = _ATTRIBUTE.unpack_from(page, at)[0]
            if size == self._whole.size:
                values = self._whole.unpack_from(page, at)
                if values[::2] == self._fixed:
                    key, octets, packets, _, left_ms = values[1::2]
                    found[key] = Element(left_ms + late_ms, packets, octets)
                    count += 1
                    at += size + 3 & ~3
                    continue
            places = _places(page, at + _ATTRIBUTE.size, at + size)
            number = {what: int.from_bytes(page[a:b], "big") for what, (a, b) in places.items()}
            a, b = places["key"]
            left_ms = number["left"] + late_ms if "left" in number else None
            found[page[a:b]] = Element(left_ms, number.get("packets", 0), number.get("bytes", 0))
            self._learn(page, at, at + size, places)
            count += 1
            at += size + 3 & ~3
        return count

    def _learn(self, page: bytes, start: int, end: int, places: dict[str, tuple[int, int]]) -> None:
        """What lies between the numbers is the same for all of this shape."""
        if list(places) != ["key", "bytes", "packets", "timeout", "left"]:
            return
        form, last = ">", start
        for what, (a, b) in places.items():
            form += f"{a - last}s" + (f"{b - a}s" if what == "key" else "Q")
            last = b
        self._whole = struct.Struct(f"{form}{end - last}s")
        self._fixed = self._whole.unpack_from(page, start)[::2]


def _places(page: bytes, start: int, end: int) -> dict[str, tuple[int, int]]:
    """Of an element's key and numbers, in the order in which the kernel has them."""
    found: dict[str, tuple[int, int]] = {}
    for kind, first, last in _attributes(page, start, end):
        if kind == 1:  # the key, one value
            found["key"] = (first + _ATTRIBUTE.size, last)
        elif kind in (4, 5):
            found["timeout" if kind == 4 else "left"] = (first, last)
        elif kind == 7:  # an expression, the counter: its name, its data
            for inner, a, b in _attributes(page, first, last):
                if inner == 2:
                    for what, c, d in _attributes(page, a, b):
                        if what in (1, 2):
                            found["bytes" if what == 1 else "packets"] = (c, d)
    return found


def _messages(page: bytes) -> Iterator[tuple[int, int]]:
    """Where each message that tells something begins, and its size. OSError: the kernel's word instead."""
    at = 0
    while at + _HEADER.size <= len(page):
        size, what, *_ = _HEADER.unpack_from(page, at)
        _raise_error(page, at)
        if what != _DONE:
            yield at, size
        at += size + 3 & ~3


def _raise_error(page: bytes, at: int) -> None:
    if _HEADER.unpack_from(page, at)[1] in (_ERROR, _DONE):
        code = -int.from_bytes(page[at + _HEADER.size : at + _HEADER.size + 4], sys.byteorder, signed=True)
        if code > 0:
            raise OSError(code, os.strerror(code))


def _ends(page: bytes) -> bool:
    at = what = 0
    while at + _HEADER.size <= len(page):
        size, what, *_ = _HEADER.unpack_from(page, at)
        at += size + 3 & ~3
    return what == _DONE


def _attributes(page: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Kind, first and last place of what each holds."""
    while start + _ATTRIBUTE.size <= end:
        size, kind = _ATTRIBUTE.unpack_from(page, start)
        yield kind & _NESTED_MASK, start + _ATTRIBUTE.size, start + size
        start += size + 3 & ~3


def _text(kind: int, text: str) -> bytes:
    data = text.encode() + b"\0"
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)

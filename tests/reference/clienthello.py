"""JA3 and JA4 of a ClientHello, as the published texts say it, from values rather than from bytes; and the bytes.

JA3: github.com/salesforce/ja3. JA4 (TLS client): github.com/FoxIO-LLC/ja4, technical_details/JA4.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

GREASE = {0x0A0A + 0x1010 * i for i in range(16)}
VERSIONS = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3"}
LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


@dataclass
class Hello:
    """What a client says, in its order; extensions by type, with their bodies."""

    version: int = 0x0303
    ciphers: list[int] = field(default_factory=lambda: [0x1301, 0x1302])
    extensions: list[tuple[int, bytes]] = field(default_factory=list)
    session: bytes = b""
    compressions: bytes = b"\x00"

    def message(self) -> bytes:
        """The handshake message, with its type and length."""
        body = self.version.to_bytes(2) + bytes(range(32)) + vector(1, self.session)
        body += vector(2, words(self.ciphers)) + vector(1, self.compressions)
        if self.extensions:
            body += vector(2, b"".join(kind.to_bytes(2) + vector(2, data) for kind, data in self.extensions))
        return b"\x01" + vector(3, body)

    def records(self, fragment: int = 16384) -> bytes:
        """The message in records of so many bytes."""
        whole = self.message()
        parts = [whole[at : at + fragment] for at in range(0, len(whole), fragment)]
        return b"".join(b"\x16\x03\x01" + vector(2, part) for part in parts)

    def body(self, kind: int) -> bytes | None:
        return next((data for each, data in self.extensions if each == kind), None)


def vector(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width) + data


def words(values: list[int]) -> bytes:
    return b"".join(value.to_bytes(2) for value in values)


def values_of(data: bytes) -> list[int]:
    return [value for at in range(0, len(data), 2) if (value := int.from_bytes(data[at : at + 2])) not in GREASE]


def server_name(name: bytes) -> tuple[int, bytes]:
    return 0, vector(2, b"\x00" + vector(2, name))


def groups(*values: int) -> tuple[int, bytes]:
    return 10, vector(2, words(list(values)))


def point_formats(*values: int) -> tuple[int, bytes]:
    return 11, vector(1, bytes(values))


def signatures(*values: int) -> tuple[int, bytes]:
    return 13, vector(2, words(list(values)))


def alpn(*names: bytes) -> tuple[int, bytes]:
    return 16, vector(2, b"".join(vector(1, name) for name in names))


def versions(*values: int) -> tuple[int, bytes]:
    return 43, vector(1, words(list(values)))


def ja3(hello: Hello) -> str:
    ciphers = [each for each in hello.ciphers if each not in GREASE]
    kinds = [kind for kind, _ in hello.extensions if kind not in GREASE]
    curves = values_of((hello.body(10) or b"\x00\x00")[2:])
    formats = list((hello.body(11) or b"\x00")[1:])
    lists = [[hello.version], ciphers, kinds, curves, formats]
    text = ",".join("-".join(map(str, each)) for each in lists)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def short_sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else "0" * 12


def hexes(values: list[int]) -> str:
    return ",".join(f"{value:04x}" for value in values)


def ja4(hello: Hello) -> str:
    ciphers = [each for each in hello.ciphers if each not in GREASE]
    kinds = [kind for kind, _ in hello.extensions if kind not in GREASE]
    supported = hello.body(43)
    version = hello.version if supported is None else max([0, *values_of(supported[1:])])
    offered = hello.body(16)
    name = offered[3 : 3 + offered[2]] if offered else b""
    if not name:
        ends = "00"
    elif name[0] in LETTERS and name[-1] in LETTERS:
        ends = chr(name[0]) + chr(name[-1])
    else:
        ends = name.hex()[0] + name.hex()[-1]
    first = f"t{VERSIONS.get(version, '00')}{'i' if hello.body(0) is None else 'd'}"
    first += f"{min(len(ciphers), 99):02}{min(len(kinds), 99):02}{ends}"
    algorithms = hexes(values_of((hello.body(13) or b"\x00\x00")[2:]))
    third = hexes(sorted(kind for kind in kinds if kind not in (0, 16)))
    return f"{first}_{short_sum(hexes(sorted(ciphers)))}_{short_sum(third + ('_' + algorithms if algorithms else ''))}"


class Bad(Exception):
    """Bytes that are no ClientHello."""


class Rest:
    """What is left of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if len(self.data) < count:
            raise Bad
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width))

    def vector(self, width: int) -> bytes:
        return self.take(self.number(width))

    def whole_vector(self, width: int) -> Rest:
        """A vector with nothing behind it."""
        found = self.vector(width)
        if self.data:
            raise Bad
        return Rest(found)


def message_of(data: bytes) -> tuple[bytes, int] | str:
    """The handshake message in records and how many bytes these have; else "more", "plain" or "bad"."""
    if data and data[0] != 22:
        return "plain"
    whole, at = b"", 0
    while len(whole) < 4 or len(whole) < 4 + int.from_bytes(whole[1:4]):
        head = data[at : at + 5]
        if len(head) < 5:
            return "more"
        count = int.from_bytes(head[3:])
        if head[0] != 22 or head[1] != 3 or not 0 < count <= 16384 or len(whole) + count > 16384:
            return "bad"
        if not whole and data[at + 5 : at + 6] not in (b"", b"\x01"):
            return "bad"
        if len(data) < at + 5 + count:
            return "more"
        whole += data[at + 5 : at + 5 + count]
        at += 5 + count
        if len(whole) >= 4 and not 4 < 4 + int.from_bytes(whole[1:4]) <= 16384:
            return "bad"
    return (whole, at) if len(whole) == 4 + int.from_bytes(whole[1:4]) else "bad"


def bounded(data: bytes, count_max: int) -> list[int]:
    """Numbers of two bytes; GREASE does not count."""
    if len(data) % 2 or len(values_of(data)) > count_max:
        raise Bad
    return values_of(data)


def check_extension(kind: int, rest: Rest) -> None:
    if kind == 0 and rest.data:
        names = rest.whole_vector(2)
        if names.number(1) != 0 or not 0 < len(names.whole_vector(2).data) <= 255:
            raise Bad
    elif kind == 16:
        names = rest.whole_vector(2)
        if not names.data:
            raise Bad
        while names.data:
            if not names.vector(1):
                raise Bad
    elif kind == 43:
        found = rest.whole_vector(1).data
        if not found or len(found) % 2:
            raise Bad
    elif kind in (10, 13):
        bounded(rest.whole_vector(2).data, 128)
    elif kind == 11:
        rest.whole_vector(1)


def read_message(message: bytes) -> Hello:
    """What a message says. Bad."""
    rest = Rest(message[4:])
    version = rest.number(2)
    rest.take(32)
    session, ciphers = rest.vector(1), rest.vector(2)
    if version >> 8 != 3 or len(session) > 32 or not ciphers or not rest.vector(1):
        raise Bad
    bounded(ciphers, 512)
    extensions: list[tuple[int, bytes]] = []
    if rest.data:
        every = rest.whole_vector(2)
        while every.data:
            extensions.append((every.number(2), every.vector(2)))
    kinds = [kind for kind, _ in extensions]
    if len(set(kinds)) < len(kinds) or sum(kind not in GREASE for kind in kinds) > 128:
        raise Bad
    for kind, data in extensions:
        if kind not in GREASE:
            check_extension(kind, Rest(data))
    numbers = [int.from_bytes(ciphers[at : at + 2]) for at in range(0, len(ciphers), 2)]
    return Hello(version, numbers, extensions, session)


def read(data: bytes) -> tuple[str, str, int] | str:
    """JA3, JA4 and the bytes of the records; else "more", "plain" or "bad"."""
    found = message_of(data)
    if isinstance(found, str):
        return found
    try:
        hello = read_message(found[0])
    except Bad:
        return "bad"
    return ja3(hello), ja4(hello), found[1]

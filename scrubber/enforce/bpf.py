"""bpf(2) by ctypes: maps, batches of their elements, loading a program, linking it to an interface.

Owns the system call and the layout of its arguments, nothing of what the maps mean. Every file descriptor is closed on
exec, and by `close`. Errors are OSError, as the kernel said them; a batch says which of its elements were refused.
Creating maps and loading take CAP_BPF and CAP_NET_ADMIN; since Linux 5.19 all else takes only the descriptor.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
from typing import NamedTuple

HASH, ARRAY, LPM_TRIE, ARRAY_OF_MAPS = 1, 2, 11, 12  # enum bpf_map_type
NO_PREALLOC, MMAPABLE = 1 << 0, 1 << 10  # flags of a map
NATIVE, GENERIC = 1 << 2, 1 << 1  # XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE

_MAP_CREATE, _UPDATE_ELEM, _PROG_LOAD, _INFO_BY_FD = 0, 2, 5, 15
_LOOKUP_BATCH, _UPDATE_BATCH, _DELETE_BATCH, _LINK_CREATE = 24, 26, 27, 28
_PROG_TYPE_XDP, _ATTACH_XDP, _LINK_TYPE_XDP = 6, 37, 6
_XDP_HAS_FRAGS = 1 << 5  # the program copes with frames of several buffers: drivers take it at any MTU
_LOG_BYTES = 1 << 20

# Every architecture numbered since 2014 has it at 280.
_NUMBERS = {"x86_64": 321, "i386": 357, "i686": 357, "ppc64le": 361, "ppc64": 361, "s390x": 351, "armv7l": 386}
_NUMBER = _NUMBERS.get(platform.machine(), 280)

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint]

_BATCH = struct.Struct("=QQQQIIQQ")  # in, out, keys, values, count, map, flags of elements, flags
_BATCH_COUNT_AT = 32


def call(command: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    """What bpf(2) returned; `attr` holds what it wrote there."""
    done = int(_syscall(_NUMBER, command, ctypes.addressof(attr), len(attr)))
    if done < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return done


def attributes(layout: str, *fields: int | bytes) -> ctypes.Array[ctypes.c_char]:
    """Arguments of one command, packed without padding of our own."""
    packed = struct.pack("=" + layout, *fields)
    return ctypes.create_string_buffer(packed, len(packed))


def address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


class Shape(NamedTuple):
    """What a map is made as."""

    kind: int
    name: str
    key_bytes: int
    value_bytes: int
    entries_max: int
    flags: int = 0
    inner: int = 0  # for a map of maps: descriptor of one like those that it will hold


class Map:
    """A map of keys and values of fixed sizes; the descriptor is ours until `close`."""

    def __init__(self, shape: Shape) -> None:
        self.key_bytes = shape.key_bytes
        self.value_bytes = shape.value_bytes
        self.entries_max = shape.entries_max
        sizes = (shape.key_bytes, shape.value_bytes, shape.entries_max)
        attr = attributes("7I16s", shape.kind, *sizes, shape.flags, shape.inner, 0, _name(shape.name))
        self.fd = call(_MAP_CREATE, attr)

    def set(self, key: bytes, value: bytes) -> None:
        """One element, new or there already."""
        keys, values = _buffer(key), _buffer(value)
        call(_UPDATE_ELEM, attributes("IIQQQ", self.fd, 0, address(keys), address(values), 0))

    def set_all(self, keys: bytes | bytearray, values: bytes) -> dict[int, int]:
        """Elements laid end to end, new or there already. Returns errno by index of those refused."""
        return self._batch(_UPDATE_BATCH, keys, values)

    def delete_all(self, keys: bytes | bytearray) -> None:
        """Those that are there; the others are no matter."""
        for number in self._batch(_DELETE_BATCH, keys, b"").values():
            if number != errno.ENOENT:
                raise OSError(number, os.strerror(number))

    def _batch(self, command: int, keys: bytes | bytearray, values: bytes) -> dict[int, int]:
        """The kernel stops at the first element that it refuses: go on behind it."""
        refused: dict[int, int] = {}
        count = len(keys) // self.key_bytes
        all_keys, all_values = _buffer(keys), _buffer(values)
        at = 0
        while at < count:
            places = (address(all_keys) + at * self.key_bytes, address(all_values) + at * self.value_bytes)
            attr = ctypes.create_string_buffer(_BATCH.pack(0, 0, *places, count - at, self.fd, 0, 0), _BATCH.size)
            try:
                call(command, attr)
            except OSError as error:
                at += _count(attr)
                if at >= count or error.errno is None:
                    raise
                refused[at] = error.errno
                at += 1
            else:
                at = count
        return refused

    def all(self) -> tuple[bytes, bytes]:
        """Keys and values of all elements, each laid end to end. Exact while nobody else writes."""
        room = self.entries_max
        keys = ctypes.create_string_buffer(room * self.key_bytes)
        values = ctypes.create_string_buffer(room * self.value_bytes)
        places = [ctypes.create_string_buffer(max(self.key_bytes, 4)) for _ in range(2)]
        found: list[tuple[bytes, bytes]] = []
        start = 0
        while True:
            ends = (start, address(places[0]), address(keys), address(values))
            attr = ctypes.create_string_buffer(_BATCH.pack(*ends, room, self.fd, 0, 0), _BATCH.size)
            ended = False
            try:
                call(_LOOKUP_BATCH, attr)
            except OSError as error:
                if error.errno != errno.ENOENT:  # that one says: these were the last
                    raise
                ended = True
            count = _count(attr)
            found.append((keys.raw[: count * self.key_bytes], values.raw[: count * self.value_bytes]))
            if ended:
                break
            places.reverse()
            start = address(places[1])
        return b"".join(pair[0] for pair in found), b"".join(pair[1] for pair in found)

    def mapped(self) -> mmap.mmap:
        """The memory of an array itself: what is stored there is what the program reads."""
        return mmap.mmap(self.fd, self.value_bytes * self.entries_max)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def load_xdp(instructions: bytes, name: str) -> int:
    """Descriptor of the loaded program. OSError: the kernel has no such thing, or may not; a program that the verifier
    refuses is a defect, told with its words."""
    code = _buffer(instructions)
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    fields = (_PROG_TYPE_XDP, len(instructions) // 8, address(code), address(licence))
    rest = (0, _XDP_HAS_FRAGS, _name(name), 0, _ATTACH_XDP)
    try:
        return call(_PROG_LOAD, attributes("IIQQIIQII16sII", *fields, 0, 0, 0, *rest))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:  # again, for what it says
            return call(_PROG_LOAD, attributes("IIQQIIQII16sII", *fields, 1, len(log), address(log), *rest))
        except OSError as again:
            said = log.value.decode(errors="replace").strip().splitlines()
            raise OSError(again.errno, f"{again.strerror}: {' | '.join(said[-3:])}") from None


def link_xdp(program: int, index: int, flags: int) -> int:
    """Descriptor of a link: the interface runs the program for as long as somebody holds it."""
    return call(_LINK_CREATE, attributes("IIII", program, index, _ATTACH_XDP, flags))


def linked_to(link: int) -> int:
    """Index of the interface that a link is on; 0: that one is gone."""
    info = ctypes.create_string_buffer(64)
    call(_INFO_BY_FD, attributes("IIQ", link, len(info), address(info)))
    kind, _, _, _, index = struct.unpack_from("=IIIII", info)
    return int(index) if kind == _LINK_TYPE_XDP else 0


def _name(text: str) -> bytes:
    """15 bytes and a zero at most, for those who list what is loaded."""
    return text.encode()[:15]


def _count(attr: ctypes.Array[ctypes.c_char]) -> int:
    return int(struct.unpack_from("=I", attr, _BATCH_COUNT_AT)[0])


def _buffer(content: bytes | bytearray) -> ctypes.Array[ctypes.c_char]:
    return (ctypes.c_char * len(content)).from_buffer_copy(content)

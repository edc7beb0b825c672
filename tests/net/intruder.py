"""What somebody with CAP_SYS_ADMIN can do to BPF objects of others: find them by number, and empty or detach them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
from collections.abc import Iterator

from scrubber.enforce import bpf
from tests.net.space import Space

_DELETE_ELEM, _NEXT_KEY = 3, 4
_PROG_BY_ID, _MAP_BY_ID, _INFO_BY_FD, _LINK_BY_ID, _NEXT_LINK, _LINK_DETACH = 13, 14, 15, 30, 31, 34
_ARRAYS = (bpf.ARRAY, bpf.ARRAY_OF_MAPS)  # nothing can be deleted there


def shown(gate: Space, interface: str) -> dict[str, object]:
    """What the kernel says of the XDP program on an interface; empty: none."""
    (found,) = json.loads(gate.ip("-json", "-details", "link", "show", "dev", interface))
    return dict(found.get("xdp", {}))


def program_id(gate: Space, interface: str) -> int:
    return int(shown(gate, interface)["prog"]["id"])  # type: ignore[index]


def empty(gate: Space, interface: str) -> None:
    """All maps that the program on this interface reads lose their elements; not those within maps."""
    with _by_id(_PROG_BY_ID, program_id(gate, interface)) as program:
        ids = bpf.attributes("32I", *[0] * 32)
        info = bpf.attributes("56xQ152x", bpf.address(ids))
        struct.pack_into("=I", info, 52, 32)  # room for so many
        bpf.call(_INFO_BY_FD, bpf.attributes("IIQ", program, len(info), bpf.address(info)))
        (count,) = struct.unpack_from("=I", info, 52)
    for number in struct.unpack_from(f"={count}I", ids):
        with _by_id(_MAP_BY_ID, number) as fd:
            _delete_all(fd)


def detach(gate: Space, interface: str) -> None:
    """The program's link, taken from its holder."""
    wanted = program_id(gate, interface)
    number = 0
    while True:
        attr = bpf.attributes("III", number, 0, 0)
        bpf.call(_NEXT_LINK, attr)  # OSError: no link has that program
        (number,) = struct.unpack_from("=I", attr, 4)
        with contextlib.suppress(FileNotFoundError), _by_id(_LINK_BY_ID, number) as fd:
            info = bpf.attributes("64x")
            bpf.call(_INFO_BY_FD, bpf.attributes("IIQ", fd, len(info), bpf.address(info)))
            if struct.unpack_from("=I", info, 8) == (wanted,):
                bpf.call(_LINK_DETACH, bpf.attributes("I", fd))
                return


def _delete_all(fd: int) -> None:
    info = bpf.attributes("80x")
    bpf.call(_INFO_BY_FD, bpf.attributes("IIQ", fd, len(info), bpf.address(info)))
    kind, _, key_bytes, _ = struct.unpack_from("=IIII", info)
    if kind in _ARRAYS:
        return
    key = bpf.attributes(f"{key_bytes}x")
    while True:
        try:
            bpf.call(_NEXT_KEY, bpf.attributes("IIQQQ", fd, 0, 0, bpf.address(key), 0))
        except OSError as error:
            assert error.errno == errno.ENOENT
            return
        bpf.call(_DELETE_ELEM, bpf.attributes("IIQQQ", fd, 0, bpf.address(key), 0, 0))


@contextlib.contextmanager
def _by_id(command: int, number: int) -> Iterator[int]:
    fd = bpf.call(command, bpf.attributes("III", number, 0, 0))
    try:
        yield fd
    finally:
        os.close(fd)

"""Anonymous memory files: sealed ones for images and plans, plain ones for shared regions.

Owns: how such a file is made and how one that came from elsewhere is checked.
Invariant: a sealed file never changes again, so whoever maps it may trust what was checked once.
"""

from __future__ import annotations

import fcntl
import os

_ADD_SEALS = 1033  # F_ADD_SEALS, F_GET_SEALS (linux/fcntl.h); the fcntl module has no names for them in 3.11
_GET_SEALS = 1034
SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0008  # SEAL, SHRINK, GROW, WRITE


def plain(name: str, size_bytes: int = 0) -> int:
    """A writable memory file of zeros that may be sealed later; the caller owns the descriptor (close-on-exec)."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.truncate(fd, size_bytes)
    except OSError:
        os.close(fd)
        raise
    return fd


def sealed(name: str, data: bytes) -> int:
    """A read-only memory file with these bytes; the caller owns the descriptor (close-on-exec)."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, _ADD_SEALS, SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def is_sealed(fd: int) -> bool:
    """Whether nothing can change this file any more. False for what is not a memory file at all."""
    try:
        return bool(fcntl.fcntl(fd, _GET_SEALS) & SEALS == SEALS)
    except OSError:
        return False


def read_all(fd: int) -> bytes:
    """The whole content, whatever the file's position is."""
    return os.pread(fd, os.fstat(fd).st_size, 0)

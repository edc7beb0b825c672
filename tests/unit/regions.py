"""Shared memory for tests: all regions, small, made and mapped as a gateway does."""

from __future__ import annotations

import os

from scrubber import _native

CAPACITIES = {
    "control": 1,
    "limiter": 4096,
    "ladder": 1024,
    "known": 4096,
    "blocks": 1024,
    "totals": 1,
    "gauges": 1024,
    "rings": 1 << 18,
    "cache": 1 << 20,
    "origins": 1,
}


SECRET_OFFSET = 4096  # the control region's payload begins with it


def make_memory(*, slots: int = 1, secret: bytes = b"", **capacities: int) -> list[_native.Memory]:
    """One mapping for each worker slot of fresh regions. `secret`: 16 bytes, for equal hashes in every run."""
    fds = {}
    for kind, capacity in (CAPACITIES | capacities).items():
        fds[kind] = os.memfd_create(kind)
        _native.region_init(fds[kind], kind, capacity, slots)
    if secret:
        os.pwrite(fds["control"], secret, SECRET_OFFSET)
    found = [_native.Memory(fds, slot) for slot in range(slots)]
    for fd in fds.values():
        os.close(fd)
    return found

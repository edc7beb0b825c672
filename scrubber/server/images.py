"""Policy and prefix images as sealed memory files. (The core checks their seals, digests and bounds: `_native.Policy`.)

Owns: sealing them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from scrubber.server import memfd


def seal(policy: bytes, prefixes: Sequence[bytes]) -> tuple[int, list[int]]:
    """Sealed memory files of the images; the caller owns the descriptors. OSError: out of descriptors or memory."""
    fds: list[int] = []
    try:
        for index, image in enumerate((policy, *prefixes)):
            fds.append(memfd.sealed("scrubber-policy" if index == 0 else f"scrubber-prefixes-{index - 1}", image))
    except OSError:
        close(fds)
        raise
    return fds[0], fds[1:]


def close(fds: Sequence[int]) -> None:
    """Give them up."""
    for fd in fds:
        os.close(fd)

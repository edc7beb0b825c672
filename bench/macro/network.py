"""A network for each run: what connections of one leave behind (TIME_WAIT, memory of sockets) costs no other anything.

Invariant: a fresh network has nothing but its own loopback; without the right to make one, everything stays as it is.
"""

from __future__ import annotations

import ctypes
import os

from pyroute2 import IPRoute

CLONE_NEWNET = 0x4000_0000  # unshare(2)
_libc = ctypes.CDLL(None, use_errno=True)


def fresh_network() -> bool:
    """From now on this thread, and what it starts, is in a network namespace of its own. False: it may not be."""
    if os.geteuid() != 0 or _libc.unshare(CLONE_NEWNET):
        return False
    with IPRoute() as network:
        network.link("set", index=network.link_lookup(ifname="lo")[0], state="up")
    return True

"""Binds the listeners: one SO_REUSEPORT socket a listener a worker slot.

Owns: their options.
Invariants: an address that somebody else listens on is refused, also where that one uses SO_REUSEPORT too; with port 0
all slots share the port of the first. Workers inherit TCP_NODELAY and never set an option on an accepted socket.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from scrubber.server.plan import ListenerPlan

BACKLOG = 4096  # the kernel takes at most net.core.somaxconn

_REASONS = {
    errno.EADDRINUSE: (
        "another program listens there",
        "find it with: ss -ltnp 'sport = :{port}', or change the listener's address in the gateway file",
    ),
    errno.EACCES: (
        "ports below 1024 need a privilege",
        "use a port from 1024 on, or give CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)",
    ),
    errno.EADDRNOTAVAIL: ("this machine has no such address", "see: ip address; or listen on all of them"),
    errno.EMFILE: ("too many open files", "raise the limit (ulimit -n), or use fewer workers or listeners"),
}


class CannotListen(Exception):
    """An address could not be bound: what, why, and what to do."""

    def __init__(self, listener: ListenerPlan, error: OSError) -> None:
        where = f"[{listener.host}]:{listener.port}" if ":" in listener.host else f"{listener.host}:{listener.port}"
        other = (error.strerror or str(error), "see the listener's address in the gateway file")
        why, hint = _REASONS.get(error.errno or 0, other)
        super().__init__(f"cannot listen on {where}: {why}")
        self.hint = hint.replace("{port}", str(listener.port))


def bind(listeners: Sequence[ListenerPlan], workers: int) -> tuple[list[ListenerPlan], list[list[socket.socket]]]:
    """The addresses really bound, and all sockets by worker slot, in the order of the listeners.

    CannotListen; then none is left open.
    """
    bound: list[ListenerPlan] = []
    slots: list[list[socket.socket]] = [[] for _ in range(workers)]
    try:
        for listener in listeners:
            if listener.port:
                _must_be_free(listener)
            actual = listener
            for slot in slots:
                slot.append(_listen(actual))
                actual = ListenerPlan(listener.host, int(slot[-1].getsockname()[1]), listener.scheme)
            bound.append(actual)
    except CannotListen:
        for each in (sock for slot in slots for sock in slot):
            each.close()
        raise
    return bound, slots


def _socket(listener: ListenerPlan) -> socket.socket:
    v6 = ":" in listener.host
    sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if v6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def _must_be_free(listener: ListenerPlan) -> None:
    """SO_REUSEPORT would quietly share the port with another program of the same user; a bind without it says so."""
    try:
        with _socket(listener) as probe:
            probe.bind((listener.host, listener.port))
    except OSError as error:
        raise CannotListen(listener, error) from None


def _listen(listener: ListenerPlan) -> socket.socket:
    try:
        sock = _socket(listener)
    except OSError as error:
        raise CannotListen(listener, error) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((listener.host, listener.port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise CannotListen(listener, error) from None
    return sock

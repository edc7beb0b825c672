"""Sockets that a service manager bound before us: sd_listen_fds(3).

Owns: LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES, and which inherited socket is which listener's. Invariant: an inherited
socket that no listener of the gateway file has ends the start: whoever made it expects that somebody answers there. A
reload may take the listener away later, and bring it back: the socket stays ours (listen.Ports).
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping, Sequence

from scrubber.errors import OperatorError
from scrubber.server.plan import ListenerPlan

FIRST = 3  # SD_LISTEN_FDS_START
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class NotOurs(OperatorError):
    """An inherited descriptor is of no use: what it is, and what to do."""


def take(environ: MutableMapping[str, str]) -> dict[int, str]:
    """The inherited descriptors with their names; the variables are removed, for they are meant for us alone."""
    pid, count, names = (environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return {}
    labels = names.split(":")
    return {
        FIRST + index: labels[index] if index < len(labels) and labels[index] else f"fd {FIRST + index}"
        for index in range(int(count))
    }


def match(inherited: dict[int, str], listeners: Sequence[ListenerPlan]) -> dict[str, list[socket.socket]]:
    """The inherited sockets by key of the listener whose address they have. NotOurs; then all of them are closed."""
    found: dict[str, list[socket.socket]] = {}
    opened: list[socket.socket] = []
    try:
        for fd, name in inherited.items():
            try:
                sock = socket.socket(fileno=fd)
                opened.append(sock)
                where = _where(sock)
            except OSError as error:
                hint = "LISTEN_FDS counts sockets that listen, from descriptor 3 on: see sd_listen_fds(3)"
                raise NotOurs(f"the inherited {name} is no socket: {error.strerror}", hint=hint) from None
            plan = next((each for each in listeners if where is not None and (each.host, each.port) == where), None)
            if plan is None:
                raise _strange(name, where, listeners)
            sock.set_inheritable(False)
            found.setdefault(plan.key, []).append(sock)
    except NotOurs:
        for sock in opened:
            sock.close()
        raise
    return found


def _where(sock: socket.socket) -> tuple[str, int] | None:
    """Host and port, or path and 0; None: it does not listen."""
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return None
    address = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return (os.fsdecode(address), 0)
    return (str(address[0]), int(address[1]))


def _strange(name: str, where: tuple[str, int] | None, listeners: Sequence[ListenerPlan]) -> NotOurs:
    if where is None:
        hint = "a stream socket is asked for, with Accept=no"
        return NotOurs(f"the inherited socket {name} does not listen", hint=hint)
    shown = ListenerPlan(*where).where
    known = ", ".join(each.where for each in listeners)
    hint = f'add a [[listener]] with address = "{shown}", or take it out of the socket unit (the file has: {known})'
    message = f"the inherited socket {name} listens on {shown}, which no listener of the gateway file has"
    return NotOurs(message, hint=hint)

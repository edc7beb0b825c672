"""The listeners: bound here, held by the keeper, handed to workers by descriptor.

Owns: the sockets and their options; which of them the policy in force names, which it does not name any more, and which
are bound for a policy that is not in force yet; those of a service manager, which holds their ports whatever a policy
says, for as long as we live.
Invariants: an address that somebody else listens on is refused, also where that one uses SO_REUSEPORT too; one socket a
worker slot where the kernel shares a port out, else one for all; with port 0 all slots share the port of the first;
only a Unix socket that we bound ourselves is removed. Workers inherit TCP_NODELAY and set no option on an accepted
socket.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from scrubber.errors import OperatorError
from scrubber.server.handover import HandedSocket
from scrubber.server.plan import ListenerPlan

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound
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
_UNIX_REASONS = {
    errno.EADDRINUSE: ("another program listens there", "find it with: ss -lxp, or choose another path"),
    errno.EEXIST: ("there is a file that is no socket", "move it away, or choose another path"),
    errno.EACCES: ("this user may not write there", "choose a directory that the gateway's user may write"),
    errno.ENOENT: ("there is no such directory", "make it first, or choose another path"),
}


class CannotListen(OperatorError):
    """An address could not be bound: what, why, and what to do. `beside`: an address of our own is why."""

    def __init__(self, listener: ListenerPlan, error: OSError, beside: str = "") -> None:
        other = (error.strerror or str(error), "see the listener's address in the gateway file")
        why, hint = (_UNIX_REASONS if listener.unix else _REASONS).get(error.errno or 0, other)
        if beside:
            why = f"the service manager's socket on {beside} does not share the port with us"
            hint = "let the socket unit bind this address as well, or take that one out of it"
        super().__init__(f"cannot listen on {listener.where}: {why}", hint=hint.replace("{port}", str(listener.port)))


@dataclass(frozen=True, slots=True)
class Given:
    """Sockets of a listener that are bound already. `ours`: a Unix socket's place is ours to remove."""

    sockets: Sequence[socket.socket]
    ours: bool = False

    def close(self) -> None:
        """Nobody needs them."""
        for each in self.sockets:
            if self.ours and each.family == socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    os.unlink(each.getsockname())
            each.close()


@dataclass(slots=True)
class Listening:
    """One listener that is bound. `inode`: of the Unix socket that is ours to remove."""

    plan: ListenerPlan
    sockets: list[socket.socket]
    inode: tuple[int, int] | None = None

    def fd(self, slot: int) -> int:
        """What the worker of that slot accepts on."""
        return self.sockets[slot % len(self.sockets)].fileno()

    def handed(self) -> HandedSocket:
        """As a successor gets it."""
        return HandedSocket([each.fileno() for each in self.sockets], self.plan.host, self.inode is not None)

    def close(self) -> None:
        """Our descriptors only: whoever else has one still accepts."""
        for each in self.sockets:
            each.close()
        self.sockets = []

    def remove(self) -> None:
        """Its place in the file system, where that is still ours."""
        if self.inode is not None and _inode(self.plan.host) == self.inode:
            with contextlib.suppress(OSError):
                os.unlink(self.plan.host)
        self.inode = None


@dataclass(slots=True)
class Ports:
    """All listeners of a keeper, by index. `inherited`: the service manager's sockets, by key; listeners use copies."""

    workers: int
    inherited: Mapping[str, Sequence[socket.socket]] = field(default_factory=dict)
    held: dict[int, Listening] = field(default_factory=dict)  # workers have them, or will at their start
    wanted: list[int] = field(default_factory=list)  # of these, the ones that the policy in force names, in order
    pending: dict[int, Listening] = field(default_factory=dict)  # for the next policy

    def plans(self) -> list[ListenerPlan]:
        """The listeners of the policy in force, with the ports really bound."""
        return [self.held[index].plan for index in self.wanted]

    def fds(self, slot: int) -> dict[str, int]:
        """By name, for a worker's start."""
        return {f"listener.{index}": listening.fd(slot) for index, listening in self.held.items()}

    def bind(self, plans: Sequence[ListenerPlan], given: Mapping[str, Given] | None = None) -> list[ListenerPlan]:
        """Bind what is not bound yet, for the next policy; all of its listeners as they will be. CannotListen: nothing
        has changed."""
        self.forget()
        given = given or {}
        new = [plan for plan in plans if plan.index not in self.held]
        try:
            for plan in new:  # before any of them is there itself
                if plan.port and plan.key not in given and plan.key not in self.inherited:
                    self._must_be_free(plan, given.values())
            for plan in new:
                self.pending[plan.index] = open_listener(plan, self.workers, given.get(plan.key) or self._copies(plan))
        except CannotListen:
            self.forget()
            raise
        for plan in plans:
            if plan.index in self.held:
                self._change_mode(plan)
                self.held[plan.index].plan = replace(self.held[plan.index].plan, scheme=plan.scheme)
        return [(self.held.get(plan.index) or self.pending[plan.index]).plan for plan in plans]

    def commit(self, wanted: Iterable[int]) -> list[int]:
        """A policy that names these is in force: the indexes that workers have yet to open."""
        new = [index for index in wanted if index in self.pending]
        self.held.update({index: self.pending.pop(index) for index in new})
        self.forget()
        self.wanted = [index for index in wanted if index in self.held]
        return new

    def forget(self) -> None:
        """What was bound for a policy that did not come into force."""
        for listening in self.pending.values():
            listening.remove()
            listening.close()
        self.pending.clear()

    def release(self) -> list[int]:
        """Close those that no policy names any more; their indexes, for the workers."""
        gone = [index for index in self.held if index not in self.wanted]
        for index in gone:
            listening = self.held.pop(index)
            listening.remove()
            listening.close()
        return gone

    def close(self, *, remove: bool) -> None:
        """All of them. remove: nobody serves them after us."""
        self.forget()
        for each in _flat(self.inherited.values()):
            each.close()
        self.inherited = {}
        for listening in self.held.values():
            if remove:
                listening.remove()
            listening.close()
        self.held.clear()
        self.wanted = []

    def _copies(self, plan: ListenerPlan) -> Given | None:
        """Of the service manager's sockets for it."""
        sockets = self.inherited.get(plan.key)
        return Given([each.dup() for each in sockets]) if sockets else None

    def _must_be_free(self, plan: ListenerPlan, given: Iterable[Given]) -> None:
        """SO_REUSEPORT would quietly share the port with another program of the same user; a bind without it says so.
        Beside an address of our own with the same port it could not tell us from others, and is left to the kernel."""
        held = (listening.sockets for listening in self.held.values())
        ours = _flat([*held, *(each.sockets for each in given), *self.inherited.values()])
        beside = [each for each in ours if _meets(plan, each)]
        for each in beside:
            if not _shares(each):
                where = replace(plan, host=each.getsockname()[0]).where
                raise CannotListen(plan, OSError(errno.EADDRINUSE, "in use"), where)
        if beside:
            return
        try:
            with _socket(plan) as probe:
                probe.bind((plan.host, plan.port))
        except OSError as error:
            raise CannotListen(plan, error) from None

    def _change_mode(self, plan: ListenerPlan) -> None:
        listening = self.held[plan.index]
        if plan.unix and plan.mode != listening.plan.mode and _inode(plan.host) == listening.inode:
            with contextlib.suppress(OSError):
                os.chmod(plan.host, plan.mode)
            listening.plan = replace(listening.plan, mode=plan.mode)


def open_listener(plan: ListenerPlan, workers: int, given: Given | None = None) -> Listening:
    """Bound and listening; `given` sockets, bound there already, are used first. CannotListen; then none is left
    open."""
    if plan.unix:
        return _open_unix(plan, given)
    if given is not None:
        return _open_given(plan, workers, given.sockets)
    sockets: list[socket.socket] = []
    actual = plan
    try:
        for _ in range(workers):
            sockets.append(_listen(actual))
            actual = replace(plan, port=int(sockets[-1].getsockname()[1]))
    except CannotListen:
        for each in sockets:
            each.close()
        raise
    return Listening(actual, sockets)


def _open_given(plan: ListenerPlan, workers: int, given: Sequence[socket.socket]) -> Listening:
    """One a slot where the kernel lets us have siblings; else the slots share what there is."""
    sockets = [_prepared(each) for each in given[:workers]]
    for each in given[workers:]:
        each.close()  # what waits there is taken by whoever gave them
    actual = replace(plan, port=int(sockets[0].getsockname()[1]))
    siblings: list[socket.socket] = []
    try:
        if sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            siblings.extend(_listen(actual) for _ in range(workers - len(sockets)))
    except CannotListen:  # another user bound it, or the port needs a privilege that we do not have
        for each in siblings:
            each.close()
        siblings.clear()
    return Listening(actual, [*sockets, *siblings])


def _shares(sock: socket.socket) -> bool:
    """Whether the kernel lets us bind beside it: its user's only."""
    ours = os.fstat(sock.fileno()).st_uid == os.geteuid()
    return ours and sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) != 0


def _prepared(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _socket(listener: ListenerPlan) -> socket.socket:
    v6 = ":" in listener.host
    sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if v6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def _flat(groups: Iterable[Sequence[socket.socket]]) -> list[socket.socket]:
    return [each for group in groups for each in group]


def _meets(plan: ListenerPlan, sock: socket.socket) -> bool:
    """Whether some connections could come to either."""
    if sock.family == socket.AF_UNIX:
        return False
    host, port = sock.getsockname()[:2]
    if port != plan.port or (":" in host) != (":" in plan.host):
        return False
    return host == plan.host or not {host, plan.host}.isdisjoint(EVERYWHERE)


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


# ── Unix sockets: one for all slots ──


def _open_unix(plan: ListenerPlan, given: Given | None) -> Listening:
    if given is not None:
        given.sockets[0].setblocking(False)
        if given.ours:
            os.chmod(plan.host, plan.mode)
        return Listening(plan, [given.sockets[0]], _inode(plan.host) if given.ours else None)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(plan.host)
        before = os.umask(0o777)  # nobody connects before it has its mode
        try:
            sock.bind(plan.host)
        finally:
            os.umask(before)
        inode = _inode(plan.host)
        os.chmod(plan.host, plan.mode)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise CannotListen(plan, error) from None
    return Listening(plan, [sock], inode)


def _remove_stale(path: str) -> None:
    """A socket on which nobody listens is left over; anything else is another's. OSError."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(path)
    if answer != errno.ECONNREFUSED:
        raise OSError(errno.EADDRINUSE, "another program listens there")
    os.unlink(path)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino

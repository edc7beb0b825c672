"""The enforcer: the one process that may change the kernel's filters and routes.

`python -m scrubber.server.enforcer FD`, started by the keeper. Owns: the loop between the supervisor's wishes and the
backends. Invariants: what takes more than CAP_NET_ADMIN happens before anything is read from the supervisor; nothing of
what the supervisor sends ends this process, or is done unless the envelope lets it; it beats between two batches.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from scrubber.enforce.announce import Announcer, Blackhole
from scrubber.enforce.backend import Backend, Door, Drop, Settings, Unavailable
from scrubber.enforce.envelope import Envelope, Floor
from scrubber.enforce.ladder import open_backends
from scrubber.enforce.messages import (
    ENTRIES_MAX,
    REASON_CHARS,
    REFUSED_MAX,
    Allowed,
    Announce,
    Announcing,
    Change,
    Counted,
    Gone,
    Hello,
    NotAMessage,
    Peer,
    Resync,
    Ruled,
    Rules,
    Standing,
    ToSupervisor,
)
from scrubber.enforce.net import Net
from scrubber.enforce.reconcile import Reconciler
from scrubber.enforce.told import Told
from scrubber.enforce.upstream import Upstream
from scrubber.errors import ValueRefused
from scrubber.server import child, log, memfd, privilege
from scrubber.server.channel import Channel, ChannelClosed, ChannelError
from scrubber.server.child import Beat
from scrubber.server.plan import Start
from scrubber.units import NS_PER_S

TURN_S = 0.1  # at most between two beats while nothing happens
COUNT_NS = NS_PER_S
COMPARE_NS = 30 * NS_PER_S
DISTURBED_NS = NS_PER_S // 5  # at most one look so soon after another, whoever disturbs
MESSAGES_TURN = 64
SHARE_MAX = 20  # a twentieth of the time at most goes into asking the kernel what it has
COUNTED_MAX = 10_000  # rows a second
NEVER_MAX = 10_000_000
REFUSED = (errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT)  # the last: by a service manager, or a kernel without
LATER = ("encodings.ascii", "encodings.latin_1", "traceback")  # by us or what we import


@dataclass(frozen=True)
class Opened:
    """What took more than CAP_NET_ADMIN, or may have."""

    floor: Floor
    backends: list[Backend]
    said: list[tuple[str, str]]  # open_backends
    announcer: Announcer | None
    announcer_said: str | None  # "" or why there is none; None: it is not configured


class Enforcer:
    """`run` until the keeper says drain, or is gone."""

    def __init__(self, channel: Channel, beat: Beat, opened: Opened, *, withdraw: bool) -> None:
        self.log = logging.getLogger("scrubber")
        self.channel, self.beat = channel, beat
        self.backends, self.said, self.upstream_said = opened.backends, opened.said, opened.announcer_said
        floor = opened.floor
        envelope = Envelope(floor)
        self.reconciler = Reconciler(self.backends, envelope, self.log.error)
        self.upstream = Upstream(opened.announcer, envelope)
        self.withdraw = withdraw
        self.peer: Peer | None = None
        self.selector = selectors.DefaultSelector()
        self.selector.register(channel, selectors.EVENT_READ, self._keeper)
        for backend in self.backends:
            if backend.fileno() >= 0:
                self.selector.register(backend.fileno(), selectors.EVENT_READ, self._disturbed)
        if self.upstream.fileno() >= 0:
            self.selector.register(self.upstream.fileno(), selectors.EVENT_READ, self._upstream_disturbed)
        self.ended = False
        self._doors: tuple[Door, ...] | None = None  # not said yet
        self._allowed = False
        self._never: list[Net] = []  # of an Allowed that is not whole
        self._revision = 0  # of what is wanted
        self._parts: tuple[dict[Net, Drop], list[Net]] | None = None  # of a change that is not whole
        self._parts_all = False  # whether it replaces everything
        self._wanted_max = 2 * (floor.hosts_max + floor.prefixes_max) + ENTRIES_MAX
        self._to_say = False
        self._compare_ns = 0
        self._count_ns = 0
        self._told = Told()
        self._announce: dict[Blackhole, int] = {}  # of an Announce that is not whole
        self._announce_max = floor.announcements_max + ENTRIES_MAX
        self._announce_revision = 0

    # ── the loop ──

    def run(self) -> None:
        while not self.ended:
            self.beat()
            for key, _ in self.selector.select(self._pause_s()):
                key.data()
            now_ns = time.monotonic_ns()
            self._work(now_ns)
        self.upstream.close()  # a blackhole that nobody minds is nobody's
        self.reconciler.close(withdraw=self.withdraw)

    def _pause_s(self) -> float:
        if self.reconciler.waiting:
            return 0.0
        due_ns = min(filter(None, [self.reconciler.due_ns(), self.upstream.due_ns()]), default=None)
        until_due_s = (due_ns - time.monotonic_ns()) / NS_PER_S if due_ns is not None else TURN_S
        return min(max(until_due_s, 0.001), TURN_S)

    def _work(self, now_ns: int) -> None:
        if self.reconciler.waiting or (self.reconciler.due_ns() or now_ns + 1) <= now_ns:
            self._to_say = True
            left = self.reconciler.step(now_ns)
        else:
            left = False
        if self.upstream.step(now_ns):
            self._tell_announcing()
        if not left and now_ns >= self._compare_ns and self._revision:
            self._compare(now_ns)
        if now_ns >= self._count_ns:
            self._tell_counts(now_ns)
        if self._to_say and not left:
            self._tell_standing()
        if self.peer is not None and self.peer.waits:
            self._send(None)

    def _compare(self, now_ns: int) -> None:
        try:
            found = self.reconciler.compare(now_ns) + self.upstream.compare(now_ns)
        except OSError as error:
            self.log.error("the kernel does not say what is in force: %s", error)
            found = 0
        self._compare_ns = _next_ns(now_ns, COMPARE_NS)
        if found:
            self._to_say = True
            self.log.warning("%d differences between what is wanted and what the kernel has: made good", found)

    def _disturbed(self) -> None:
        soon_ns = time.monotonic_ns() + DISTURBED_NS
        if any([backend.disturbed() for backend in self.backends]) and soon_ns < self._compare_ns:
            self._compare_ns = soon_ns

    def _upstream_disturbed(self) -> None:
        if self.upstream.disturbed():
            self._compare_ns = min(self._compare_ns, time.monotonic_ns() + DISTURBED_NS)

    # ── the keeper ──

    def _keeper(self) -> None:
        try:
            while (received := self.channel.receive()) is not None:
                if received.type == "peer" and received.fds:
                    self._meet(socket.socket(fileno=received.fds.pop()))
                elif received.type == "drain":
                    self.ended = True
                    self.withdraw = self.withdraw and not received.message["leave"]
                received.close()
        except ChannelClosed:
            self.ended = True
        except ChannelError as error:
            self.log.error("the keeper broke the protocol: %s", error)
            self.ended = True

    # ── the supervisor ──

    def _meet(self, sock: socket.socket) -> None:
        """Another supervisor: it knows nothing of what was said before. What is in force stays meanwhile."""
        self._part()
        self.peer = Peer(sock, enforcer=True)
        self.selector.register(self.peer, selectors.EVENT_READ, self._supervisor)
        self._parts, self._revision, self._never = None, 0, []
        self._told, self._count_ns = Told(), 0  # at once, before anything is put
        self._announce, self._announce_revision = {}, 0
        self.upstream.found()
        said = self.upstream_said
        self._send(
            Hello(
                tuple((name, why[:REASON_CHARS]) for name, why in self.said),
                said[:REASON_CHARS] if said is not None else None,
            )
        )

    def _part(self) -> None:
        if self.peer is not None:
            self.upstream.lost(time.monotonic_ns())
            self.selector.unregister(self.peer)
            self.peer.close()
            self.peer = None

    def _supervisor(self) -> None:
        for _ in range(MESSAGES_TURN):
            if self.peer is None:
                return
            try:
                message = self.peer.receive()
            except NotAMessage as why:
                self._resync(f"not a message: {why}")
                continue
            except Gone:
                self._part()
                return
            if message is None:
                return
            if isinstance(message, Allowed):
                self._obey_allowed(message)
            elif isinstance(message, Change):
                self._obey_change(message)
            elif isinstance(message, Announce):
                self._obey_announce(message)
            elif isinstance(message, Rules):
                self._obey_rules(message)

    def _resync(self, why: str) -> None:
        """What is in force stays; nothing that follows counts before everything is said anew."""
        self.log.error("the supervisor: %s", why)
        self._revision, self._parts, self._announce, self._never = 0, None, {}, []
        self._send(Resync(why[:REASON_CHARS]))

    def _obey_allowed(self, message: Allowed) -> None:
        self._never += message.terms.never
        if message.more and len(self._never) < NEVER_MAX:
            return
        terms = msgspec.structs.replace(message.terms, never=tuple(self._never))
        self._never = []
        try:
            self.reconciler.use(terms, message.doors, doors_changed=message.doors != self._doors)
        except (ValueRefused, ValueError, OSError) as error:
            self._resync(f"not allowed so: {error}")
            return
        self._doors, self._allowed = message.doors, True
        self.upstream.ask_again()

    def _obey_change(self, message: Change) -> None:
        if not self._allowed:
            self._resync("a change before it was said what is allowed")
            return
        if self._parts is None:
            follows = message.base == self._revision < message.revision
            if message.base and not follows:
                self._resync(f"revision {message.revision} follows {message.base}, here is {self._revision}")
                return
            self._parts, self._parts_all = ({}, []), message.base == 0
        put, remove = self._parts
        if len(put) + len(remove) > self._wanted_max:
            self._resync(f"more than {self._wanted_max} at once")
            return
        put.update({net: Drop(until_ns, doors) for net, until_ns, doors in message.put})
        remove += message.remove
        if message.more:
            return
        self._parts = None
        if self._parts_all:
            self.reconciler.replace(put)
        else:
            self.reconciler.change(put, remove)
        self._revision, self._to_say = message.revision, True

    def _obey_announce(self, message: Announce) -> None:
        if not self._allowed:
            self._resync("an announcement before it was said what is allowed")
            return
        self._announce.update({(net, kind): until_ns for net, kind, until_ns in message.put})
        if len(self._announce) > self._announce_max:
            self._resync(f"more than {self._announce_max} announcements")
        elif not message.more:
            self.upstream.want(self._announce)
            self._announce, self._announce_revision = {}, message.revision

    def _obey_rules(self, message: Rules) -> None:
        if not self._allowed:
            self._resync("rules before it was said what is allowed")
            return
        refused: list[tuple[int, str]] = self.upstream.judge(message.flows, time.monotonic_ns())
        self._send(Ruled(message.revision, refused))

    def _tell_announcing(self) -> None:
        upstream = self.upstream
        refused = [(net, kind, why) for (net, kind), why in upstream.refused.items()]
        upstream.refused = {}
        in_force = upstream.in_force
        count = max(len(in_force), len(refused), 1)
        for at in range(0, count, REFUSED_MAX):
            end = at + REFUSED_MAX
            self._send(Announcing(self._announce_revision, in_force[at:end], refused[at:end], more=end < count))

    def _tell_standing(self) -> None:
        reconciler = self.reconciler
        refused = list(reconciler.refused.items())
        lost = reconciler.refused_lost + max(len(refused) - REFUSED_MAX, 0)
        reconciler.refused, reconciler.refused_lost, self._to_say = {}, 0, False
        self._send(
            Standing(
                self._revision,
                reconciler.in_force(),
                reconciler.waiting,
                [(net, why[:REASON_CHARS]) for net, why in refused[:REFUSED_MAX]],
                lost,
                reconciler.healed,
            )
        )

    def _tell_counts(self, now_ns: int) -> None:
        """Says how long the next round takes, too, also where nothing has changed."""
        if self.peer is None:
            return
        try:
            counted = self.reconciler.counted()
        except OSError as error:
            self.log.error("the kernel does not say what it has dropped: %s", error)
            self._count_ns = _next_ns(now_ns, COUNT_NS)
            return
        self._count_ns = _next_ns(now_ns, COUNT_NS)
        round_ns = self._count_ns - now_ns
        earlier = not self._told.begun
        rows, rounds = self._told.next(counted, COUNTED_MAX * round_ns // NS_PER_S)
        for at in range(0, max(len(rows), 1), ENTRIES_MAX):
            self._send(Counted(rows[at : at + ENTRIES_MAX], round_ns * rounds, earlier))

    def _send(self, message: ToSupervisor | None) -> None:
        """None: only what waits."""
        if self.peer is None:
            return
        try:
            if message is None:
                self.peer.flush()
            else:
                self.peer.send(message)  # of one that does not read, what is too much is let fall
        except Gone:
            self._part()


def _next_ns(begun_ns: int, every_ns: int) -> int:
    """When to do again what was begun then: what takes long is done more rarely, so that blocks do not wait for it."""
    now_ns = time.monotonic_ns()
    return now_ns + max(every_ns, (now_ns - begun_ns) * (SHARE_MAX - 1))


def prove_harmless() -> None:
    """What must fail, fails. SystemExit: it did not."""
    wanted = 1 << privilege.CAP_NET_ADMIN
    found = privilege.Privileges.of(os.getpid())
    if found is None or found.capabilities & ~wanted or not found.no_new_privs:
        sys.exit("the enforcer holds more than CAP_NET_ADMIN: it does not start")
    if found.uid != 0:
        with contextlib.suppress(PermissionError):
            os.setresuid(0, 0, 0)
            sys.exit("the enforcer can become root again: it does not start")
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    except OSError as error:
        if error.errno in REFUSED:
            return
    sys.exit("the enforcer may read packets: it does not start")


def open_all(wanted: dict[str, Any], floor: Floor) -> Opened:
    """Backends, and what announces, as far as this machine has them. `wanted`: the plan's settings of the enforcer."""
    settings = Settings(
        doors=(),
        interfaces=tuple(wanted["interfaces"]),
        hosts_max=floor.hosts_max,
        prefixes_max=floor.prefixes_max,
        xdp_mode=wanted["xdp_mode"],
    )
    backends, said = open_backends(wanted["drop"], settings)
    if not wanted["announces"]:
        return Opened(floor, backends, said, None, None)
    try:
        return Opened(floor, backends, said, Announcer(announced_max=floor.announcements_max), "")
    except Unavailable as why:
        return Opened(floor, backends, said, None, str(why))


def main(argv: list[str]) -> int:
    """FD being the channel to the keeper."""
    opened: list[Opened] = []

    def open_it(start: Start) -> None:
        child.import_as_root(LATER)
        floor = msgspec.json.decode(memfd.read_all(start.fds["floor"]), type=Floor)
        opened.append(open_all(start.settings["enforcer"], floor))

    logger = log.setup("enforcer")
    channel, start = child.begin(argv, open_it, keep=(privilege.CAP_NET_ADMIN,))
    prove_harmless()
    (found,) = opened
    for name, why in [*found.said, ("announcing upstream", found.announcer_said)]:
        if why:
            logger.warning("%s is not available here: %s", name, why)
    withdraw = start.settings["enforcer"]["on_stop"] == "withdraw"
    Enforcer(channel, Beat(start.fds["beat"]), found, withdraw=withdraw).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
